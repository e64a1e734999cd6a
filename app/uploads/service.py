"""What can be done with resumable uploads."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.core.errors import ChecksumMismatch, InvalidState, NotFound
from app.core.ids import new_id
from app.core.security import Caller
from app.core.settings import Settings
from app.core.unit import Services, Unit, transaction
from app.keys import quotas
from app.storage.pieces import Piece
from app.uploads import repository, tus
from app.uploads.multipart import HEAD_BYTES, Upload, safe_filename
from app.uploads.tables import Resumable

# A writer that brought nothing for so long has lost its connection without our noticing: another may go on.
SILENT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Turn:
    """One request's right to write to an upload."""

    upload_id: str
    token: str
    kind: tus.Kind | None
    filename: str
    length: int
    offset: int
    pieces: tuple[Piece, ...]
    may_go_on: bool  # with the last piece; not where the writer before may still be writing to it
    expected_sha256: str | None


def limit_of(settings: Settings, kind: str | None) -> int:
    """The most bytes of a file that becomes this; of one that may become either, the larger."""
    limits = {"model": settings.max_model_bytes, "dataset": settings.max_dataset_bytes}
    return limits.get(kind or "", max(limits.values()))


def create(unit: Unit, settings: Settings, caller: Caller, asked: tus.Creation) -> Resumable:
    """An upload of which nothing has come yet; its room is kept. Raises UploadTooLarge or QuotaExceeded."""
    tus.check_size(asked.length, limit_of(settings, asked.kind))
    quotas.require_bytes(unit.session, caller, asked.length, unit.now)
    row = Resumable(
        id=new_id("upload", unit.now),
        owner_id=caller.owner_id,
        kind=asked.kind,
        filename=safe_filename(asked.filename),
        metadata_header=asked.metadata,
        length=asked.length,
        received=0,
        expected_sha256=asked.sha256,
        created_at=unit.now,
        expires_at=expiry(settings, unit.now),
    )
    unit.session.add(row)
    unit.session.flush()
    return row


def expiry(settings: Settings, now: datetime) -> datetime:
    return now + timedelta(seconds=settings.upload_seconds)


def get(unit: Unit, caller: Caller, upload_id: str) -> Resumable:
    row = repository.find(unit.session, caller.owner_id, upload_id, unit.now)
    if row is None:
        raise _not_found(upload_id)
    return row


def state_of(row: Resumable, now: datetime) -> tus.State:
    return tus.State(
        length=row.length,
        received=row.received,
        expires_at=row.expires_at,
        locked=repository.is_locked(row, now),
        metadata=row.metadata_header,
    )


def take_turn(unit: Unit, caller: Caller, upload_id: str, asked: tus.Append) -> Turn:
    """Let this request write, and no other until it ends or falls silent.

    Raises NotFound, OffsetMismatch, UploadTooLarge or UploadLocked.
    """
    row = repository.find_to_change(unit.session, caller.owner_id, upload_id, unit.now)
    if row is None:
        raise _not_found(upload_id)
    tus.decide_append(asked, state_of(row, unit.now))
    displaced = row.writer is not None
    token = secrets.token_hex(8)
    repository.lock(row, token, unit.now, SILENT_SECONDS)
    return Turn(
        upload_id=row.id,
        token=token,
        kind="model" if row.kind == "model" else "dataset" if row.kind == "dataset" else None,
        filename=row.filename,
        length=row.length,
        offset=row.received,
        pieces=tuple(repository.pieces_of(unit.session, row.id)),
        may_go_on=not displaced,
        expected_sha256=row.expected_sha256,
    )


def advance(
    services: Services,
    turn: Turn,
    pieces: Sequence[Piece],
    received: int,
    *,
    ends: bool,
    sha256: str | None = None,
) -> tus.State:
    """Write down what has come, and end or prolong this request's turn.

    Raises UploadLocked if it is another's turn by now, and NotFound if the upload is gone.
    """
    with transaction(services) as unit:
        row = repository.find_written_by(unit.session, turn.upload_id, turn.token)
        if row is None:
            raise tus.locked() if unit.session.get(Resumable, turn.upload_id) else _not_found(turn.upload_id)
        repository.record(unit.session, turn.upload_id, pieces)
        row.received = received
        row.expires_at = expiry(services.settings, unit.now)
        row.sha256 = sha256 or row.sha256
        if ends:
            row.writer = row.writer_until = None
        else:
            repository.lock(row, turn.token, unit.now, SILENT_SECONDS)
        return state_of(row, unit.now)


def terminate(unit: Unit, services: Services, caller: Caller, upload_id: str) -> None:
    """Forget an upload and what has come of it."""
    row = repository.find_to_change(unit.session, caller.owner_id, upload_id, unit.now)
    if row is None:
        raise _not_found(upload_id)
    repository.remove(unit.session, row.id)
    unit.after_commit(lambda: services.store.pieces.delete(upload_id))


def abandon(services: Services, upload_id: str) -> None:
    """Forget an upload that can become nothing."""
    with transaction(services) as unit:
        repository.remove(unit.session, upload_id)
        unit.after_commit(lambda: services.store.pieces.delete(upload_id))


def check_sha256(services: Services, turn: Turn, measured: str | None) -> None:
    """Compare the whole file with what the client said of it. Raises ChecksumMismatch; the upload is gone
    then, as no byte of it can be trusted."""
    if turn.expected_sha256 is None:
        return
    if measured is None:
        with services.sessions() as session:
            pieces = repository.pieces_of(session, turn.upload_id)
        measured = services.store.pieces.digest(pieces)
    if measured != turn.expected_sha256:
        abandon(services, turn.upload_id)
        raise mismatch(measured, turn.expected_sha256, "The upload was deleted: send the file again.")


def mismatch(measured: str, expected: str, hint: str) -> ChecksumMismatch:
    return ChecksumMismatch(f"The file that came has the SHA-256 {measured}, not {expected}.", hint=hint)


@contextmanager
def taken(
    services: Services, caller: Caller, upload_id: str, *, kind: tus.Kind, sha256: str | None
) -> Iterator[Upload]:
    """A complete upload as a staged file, as a form would have brought it. It stays until `consume`.

    Raises NotFound, InvalidState (bytes are missing), UploadTooLarge or ChecksumMismatch.
    """
    with transaction(services) as unit:
        row = get(unit, caller, upload_id)
        pieces = repository.pieces_of(unit.session, row.id)
    if row.received != row.length:
        raise InvalidState(
            f"{row.received:,} of {row.length:,} bytes of {row.id} have come.",
            hint="Send the rest with PATCH, then use the upload.",
        )
    tus.check_size(row.length, limit_of(services.settings, kind))
    staged = services.store.pieces.gather(pieces, row.sha256)
    try:
        for expected in (row.expected_sha256, sha256):
            if expected is not None and staged.sha256 != expected:
                raise mismatch(staged.sha256, expected, "The upload is kept; compare the two.")
        head = services.store.pieces.head(pieces, HEAD_BYTES)
        yield Upload(staged, row.filename, head, fields={}, resumable=row.id)
    finally:
        services.store.discard(staged)  # nothing is left to discard once it was kept


def consume(unit: Unit, services: Services, upload: Upload) -> None:
    """End an upload that has become a model or a data set; nothing to do for one that came as a form."""
    upload_id = upload.resumable
    if upload_id is None:
        return
    if not repository.remove(unit.session, upload_id):
        raise _not_found(upload_id)  # another request was faster
    unit.after_commit(lambda: services.store.pieces.delete(upload_id))


def _not_found(upload_id: str) -> NotFound:
    return NotFound(
        f"There is no upload {upload_id[:64]!r}.",
        hint="It may have been used or deleted, or its time is over.",
    )
