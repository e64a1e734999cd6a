"""What only the pages ask of the database."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.jobs.states import JobStatus
from app.jobs.tables import Job, JobEvent, JobMetric
from app.models.tables import Model


def course(session: Session, job_id: str) -> tuple[list[dict[str, Any]], int]:
    """The events that began a stage or an attempt, and the number of the last event of all.

    A long job has thousands of events; stages and attempts are a dozen.
    """
    begins = or_(
        JobEvent.type == "stage",
        (JobEvent.type == "progress") & ~JobEvent.data.has_key("fraction"),  # JSONB
    )
    statement = select(JobEvent).where(JobEvent.job_id == job_id, begins).order_by(JobEvent.seq)
    events = [
        {
            "type": event.type,
            "stage": event.stage,
            "data": event.data,
            "created_at": event.created_at.isoformat(),
        }
        for event in session.scalars(statement)
    ]
    last = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id))
    return events, last or 0


def has_curves(session: Session, job_id: str) -> bool:
    """Whether the job measured what the page draws, so that the charts' room is kept from the start."""
    statement = select(JobMetric.step).where(
        JobMetric.job_id == job_id, JobMetric.name.in_(("train_loss", "accuracy", "agreement"))
    )
    return session.execute(statement.limit(1)).first() is not None


def finished_runs(session: Session, owner_id: str, model_id: str, limit: int) -> Sequence[Job]:
    """The newest jobs of a model that have a result."""
    statement = select(Job).where(
        Job.owner_id == owner_id, Job.model_id == model_id, Job.status == JobStatus.SUCCEEDED
    )
    return session.scalars(statement.order_by(Job.id.desc()).limit(limit)).all()


def model_names(session: Session, ids: Collection[str]) -> Mapping[str, str]:
    """Names of models, for lists of jobs."""
    rows = session.execute(select(Model.id, Model.name).where(Model.id.in_(ids)))
    return {row.id: row.name for row in rows}


def figures_of_batch(session: Session, batch_id: str, limit: int) -> Sequence[Any]:
    """What is drawn of each finished job of a batch; a whole result is a hundred times as large."""
    result = Job.result
    statement = (
        select(
            Job.id,
            Job.name,
            Job.kind,
            Job.model_id,
            Job.options["compression"]["target"].label("target"),
            result["original"].label("original"),
            result["compressed"].label("compressed"),
            result["synthetic"].label("synthetic"),
        )
        .where(Job.batch_id == batch_id, Job.status == JobStatus.SUCCEEDED)
        .order_by(Job.id)
        .limit(limit)
    )
    return session.execute(statement).all()
