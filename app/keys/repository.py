"""Queries over API keys."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.core.pagination import PageQuery, read_page
from app.keys.tables import ApiKey


def by_digest(session: Session, digest: str) -> ApiKey | None:
    return session.scalar(select(ApiKey).where(ApiKey.digest == digest))


def by_id(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id)


def page_of(session: Session, page: PageQuery) -> tuple[Sequence[ApiKey], bool]:
    return read_page(session, select(ApiKey), ApiKey.id, "key", page)


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


def touch(session: Session, key_id: str, now: datetime) -> None:
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now))
