"""API keys: the secret is kept as a keyed hash only."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(index=True)  # several keys can share one owner
    maker_id: Mapped[str | None] = mapped_column(
        index=True
    )  # the owner who made this owner; may manage its keys
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)  # HMAC-SHA256 of the secret under settings.secret_key
    scopes: Mapped[list[str]]  # empty = all but admin
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    # This key's own quotas; null = the service's, 0 = none
    stored_bytes: Mapped[int | None]
    active_jobs: Mapped[int | None]
    requests_per_minute: Mapped[int | None]


class Reservation(Base):
    """Room for an upload that is on its way, so that many at once cannot take more than the quota."""

    __tablename__ = "reservations"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int]
    expires_at: Mapped[datetime]  # of a process that was killed meanwhile


class IdempotencyRecord(Base):
    """The first answer to a creating POST, given again for the same key and body."""

    __tablename__ = "idempotency_records"

    owner_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)  # "POST /v1/jobs"
    body_sha256: Mapped[str]
    status: Mapped[int | None]  # null while the first request is still being answered
    response: Mapped[str | None]  # the JSON body
    created_at: Mapped[datetime] = mapped_column(index=True)
