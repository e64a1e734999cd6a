"""Jobs, their events and their metrics."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.batches.tables import Batch  # noqa: F401 - the table that a foreign key names
from app.core.db import Base
from app.core.leases import Leased


class Job(Leased, Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_owner_id_id", "owner_id", "id"),
        Index("ix_jobs_owner_id_status_id", "owner_id", "status", "id"),  # lists by status, and quotas
        Index("ix_jobs_status_created_at", "status", "created_at"),  # reaper and figures: oldest first
        Index("ix_jobs_batch_id_id", "batch_id", "id"),
        Index("ix_jobs_batch_id_status", "batch_id", "status"),  # a batch counts its jobs
        # Whose turn it is: as small as what waits, however many jobs have ended.
        Index("ix_jobs_waiting", "owner_id", "batch_id", "id", postgresql_where=text("status = 'queued'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    kind: Mapped[str]  # compress | train
    name: Mapped[str | None]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    batch_line: Mapped[int | None]  # which of the batch's lines it was
    options: Mapped[dict[str, Any]]  # JobOptions, frozen when the job was accepted
    annotations: Mapped[dict[str, Any]]  # the user's own `metadata`
    status: Mapped[str]
    stage: Mapped[str | None]
    progress: Mapped[dict[str, Any]]
    warnings: Mapped[list[dict[str, Any]]]
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)  # what retention goes by


class JobEvent(Base):
    __tablename__ = "job_events"
    __table_args__ = (
        UniqueConstraint("job_id", "seq"),
        # A job ends once: whoever would write a second `done` loses its whole transaction.
        Index("uq_job_events_done", "job_id", unique=True, postgresql_where=text("type = 'done'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int]
    type: Mapped[str]  # stage | progress | metric | warning | error | done
    stage: Mapped[str | None]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class JobMetric(Base):
    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
    at: Mapped[datetime]


class JobCheckpoint(Base):
    """What an attempt left for the next one to go on with; the bytes are an object of the storage.

    At most one of each part: `network` as it stands at the beginning of a stage, `training` in the middle of
    one. `event_seq` and `warnings` are how far the job had told its story when the part was made.
    """

    __tablename__ = "job_checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)  # network | training
    key: Mapped[str]  # of the object
    bytes: Mapped[int]
    sha256: Mapped[str]
    stage: Mapped[str]  # where the next attempt begins
    epoch: Mapped[int]
    step: Mapped[int]
    event_seq: Mapped[int]
    warnings: Mapped[int]  # how many the job had
    created_at: Mapped[datetime]


class Turn(Base):
    """When an owner's jobs, or those of one of its batches, were last taken by a worker."""

    __tablename__ = "turns"

    owner_id: Mapped[str] = mapped_column(primary_key=True)
    batch_id: Mapped[str] = mapped_column(primary_key=True)  # empty: jobs of no batch
    served_at: Mapped[datetime] = mapped_column(index=True)
