"""Queries over API keys."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, literal, or_, select, update
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.keys.tables import ApiKey


def by_digest(session: Session, digest: str) -> ApiKey | None:
    return session.scalar(select(ApiKey).where(ApiKey.digest == digest))


def by_id(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id)


def find(session: Session, owner_id: str, key_id: str) -> ApiKey | None:
    """A key that this owner manages."""
    if not is_id(key_id, "key"):
        return None
    return session.scalar(_managed(owner_id).where(ApiKey.id == key_id))


def page_of(session: Session, owner_id: str, page: PageQuery) -> tuple[Sequence[ApiKey], bool]:
    return read_page(session, _managed(owner_id), ApiKey.id, "key", page)


def _managed(owner_id: str) -> Select[ApiKey]:
    """Keys of this owner, of the owners it made, of those that they made, and so on."""
    managed = select(literal(owner_id).label("owner_id")).cte("managed", recursive=True)
    managed = managed.union(select(ApiKey.owner_id).where(ApiKey.maker_id == managed.c.owner_id))
    return select(ApiKey).where(ApiKey.owner_id.in_(select(managed.c.owner_id)))


def first_owner(session: Session) -> str | None:
    """The owner of the service's first key that could do everything, whether it still works or not."""
    first = select(ApiKey.owner_id).where(ApiKey.scopes.contains(["admin"])).order_by(ApiKey.id).limit(1)
    return session.scalar(first)


def oldest_admin(session: Session, now: datetime) -> ApiKey | None:
    """The owner's key: the first that may do everything and still works."""
    statement = (
        select(ApiKey)
        .where(ApiKey.scopes.contains(["admin"]), ApiKey.revoked_at.is_(None))
        .where(or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))
        .order_by(ApiKey.id)
        .limit(1)
    )
    return session.scalar(statement)


def is_owner(session: Session, owner_id: str) -> bool:
    return session.scalar(select(ApiKey.id).where(ApiKey.owner_id == owner_id).limit(1)) is not None


def touch(session: Session, key_id: str, now: datetime) -> None:
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now))
