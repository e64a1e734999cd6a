"""Batches: many jobs that were sent at once. Their jobs are ordinary rows that name them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base


class Batch(Base):
    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    name: Mapped[str | None]
    on_error: Mapped[str]  # abort | skip
    status: Mapped[str]  # running | cancelling | cancelled | completed
    total: Mapped[int]  # lines that were sent, invalid ones too
    invalid: Mapped[int]
    errors: Mapped[list[dict[str, Any]]]  # of the first invalid lines: line, code, detail, pointer
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
