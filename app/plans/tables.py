"""Plans, and the measurements of networks that they are made from."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base
from app.core.leases import Leased


class Plan(Leased, Base):
    """What a job would choose. It goes with its model, and with its data set."""

    __tablename__ = "plans"
    __table_args__ = (Index("ix_plans_owner_id_id", "owner_id", "id"),)
    waiting: ClassVar[str] = "queued"
    refused: ClassVar[str] = "failed"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), index=True)
    compression: Mapped[dict[str, Any]]  # as a job's, with basis and forms written out
    status: Mapped[str] = mapped_column(index=True)  # queued | ready | failed
    progress: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]  # what the worker found: schemas.PlanResult
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Measurement(Base):
    """What the layers of a network could become, kept as an object: plans with other targets only choose."""

    __tablename__ = "measurements"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)  # a hash of all that the numbers depend on
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(index=True)  # its object's address
    bytes: Mapped[int]
    created_at: Mapped[datetime]
