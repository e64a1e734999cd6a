"""Queries over resumable uploads. What belongs to another owner, or has expired, does not exist."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.storage.pieces import Piece
from app.uploads.tables import Resumable, UploadPiece


def find(session: Session, owner_id: str, upload_id: str, now: datetime) -> Resumable | None:
    if not is_id(upload_id, "upload"):
        return None
    return session.scalar(_owned(owner_id, now).where(Resumable.id == upload_id))


def find_to_change(session: Session, owner_id: str, upload_id: str, now: datetime) -> Resumable | None:
    """The upload, and nobody else changes it until the transaction ends."""
    if not is_id(upload_id, "upload"):
        return None
    return session.scalar(_owned(owner_id, now).where(Resumable.id == upload_id).with_for_update())


def find_written_by(session: Session, upload_id: str, token: str) -> Resumable | None:
    """The upload if it is still this request's turn to write to it."""
    ours = select(Resumable).where(Resumable.id == upload_id, Resumable.writer == token)
    return session.scalar(ours.with_for_update())


def page_of(
    session: Session, owner_id: str, page: PageQuery, now: datetime
) -> tuple[Sequence[Resumable], bool]:
    return read_page(session, _owned(owner_id, now), Resumable.id, "upload", page)


def pieces_of(session: Session, upload_id: str) -> list[Piece]:
    """What has come, in order."""
    rows = session.scalars(
        select(UploadPiece).where(UploadPiece.upload_id == upload_id).order_by(UploadPiece.start)
    )
    return [Piece(key=row.key, start=row.start, bytes=row.bytes) for row in rows]


def record(session: Session, upload_id: str, pieces: Sequence[Piece]) -> None:
    """Write down pieces that are new or have grown."""
    for piece in pieces:
        session.merge(UploadPiece(upload_id=upload_id, start=piece.start, bytes=piece.bytes, key=piece.key))


def remove(session: Session, upload_id: str) -> bool:
    """Delete the upload's rows; whether there were any."""
    removed = session.execute(
        delete(Resumable).where(Resumable.id == upload_id).returning(Resumable.id)
    ).one_or_none()
    return removed is not None


def remove_expired(session: Session, now: datetime, limit: int) -> list[str]:
    """Delete the rows of uploads whose time is over and that nobody writes to; their ids."""
    idle = or_(Resumable.writer.is_(None), Resumable.writer_until < now)
    expired = (
        select(Resumable.id)
        .where(Resumable.expires_at < now, idle)
        .order_by(Resumable.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(expired))
    session.execute(delete(Resumable).where(Resumable.id.in_(ids)))
    return ids


def without_row(session: Session, ids: set[str]) -> set[str]:
    """Those of these uploads that no longer exist."""
    return ids - set(session.scalars(select(Resumable.id).where(Resumable.id.in_(ids))))


def is_locked(row: Resumable, now: datetime) -> bool:
    """Whether a request that is not silent writes to it."""
    return row.writer is not None and row.writer_until is not None and row.writer_until > now


def lock(row: Resumable, token: str, now: datetime, seconds: float) -> None:
    row.writer, row.writer_until = token, now + timedelta(seconds=seconds)


def _owned(owner_id: str, now: datetime) -> Select[Resumable]:
    return select(Resumable).where(Resumable.owner_id == owner_id, Resumable.expires_at > now)
