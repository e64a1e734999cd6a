"""Queries over jobs, their events and their metrics. What belongs to another owner does not exist."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, case, select, update
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.jobs.states import ENDED, JobStatus, sources
from app.jobs.tables import Job, JobEvent, JobMetric


def find(session: Session, owner_id: str, job_id: str) -> Job | None:
    if not is_id(job_id, "job"):
        return None
    return session.scalar(_owned(owner_id).where(Job.id == job_id))


def find_to_delete(session: Session, owner_id: str, job_id: str) -> Job | None:
    if not is_id(job_id, "job"):
        return None
    return session.scalar(_owned(owner_id).where(Job.id == job_id).with_for_update())


def page_of(
    session: Session,
    owner_id: str,
    page: PageQuery,
    status: JobStatus | None = None,
    batch: str | None = None,
) -> tuple[Sequence[Job], bool]:
    statement = _owned(owner_id)
    if status is not None:
        statement = statement.where(Job.status == status)
    if batch is not None:
        statement = statement.where(Job.batch_id == batch)
    return read_page(session, statement, Job.id, "job", page)


def cancel_queued(session: Session, job_id: str, now: datetime) -> bool:
    """Queued → cancelled, if it is still queued."""
    moved = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED)
        .values(status=JobStatus.CANCELLED, finished_at=now)
        .returning(Job.id)
    )
    return moved is not None


def ask_to_cancel(session: Session, job_id: str) -> bool:
    """Running → cancelling, if it is still running; its worker does the rest."""
    moved = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.status.in_(sources(JobStatus.CANCELLING)))
        .values(status=JobStatus.CANCELLING)
        .returning(Job.id)
    )
    return moved is not None


def stop_batch(session: Session, batch_id: str, now: datetime) -> list[tuple[str, JobStatus]]:
    """Queued → cancelled and running → cancelling, of all jobs of a batch: their ids and new statuses.

    One statement: a job that a worker takes or hands back meanwhile is one of both, or is met again.
    """
    waits = Job.status == JobStatus.QUEUED
    stoppable = (JobStatus.QUEUED, *sources(JobStatus.CANCELLING))
    moved = session.execute(
        update(Job)
        .where(Job.batch_id == batch_id, Job.status.in_(stoppable))
        .values(
            status=case((waits, JobStatus.CANCELLED.value), else_=JobStatus.CANCELLING.value),
            finished_at=case((waits, now), else_=None),
        )
        .returning(Job.id, Job.status)
    )
    return [(job_id, JobStatus(status)) for job_id, status in moved]


def has_ended(session: Session, job_id: str) -> bool | None:
    """Whether the job has ended; None if there is no such job any more."""
    status = session.scalar(select(Job.status).where(Job.id == job_id))
    return None if status is None else JobStatus(status) in ENDED


def event_page(
    session: Session, job_id: str, after_seq: int | None, limit: int, *, newest_first: bool
) -> tuple[Sequence[JobEvent], bool]:
    statement = select(JobEvent).where(JobEvent.job_id == job_id)
    if after_seq is not None:
        statement = statement.where(JobEvent.seq < after_seq if newest_first else JobEvent.seq > after_seq)
    order = JobEvent.seq.desc() if newest_first else JobEvent.seq.asc()
    rows = session.scalars(statement.order_by(order).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def event_seq(session: Session, job_id: str, event_id: str) -> int | None:
    """The number of one of the job's events."""
    return session.scalar(select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.id == event_id))


def metrics(session: Session, job_id: str) -> Sequence[JobMetric]:
    statement = select(JobMetric).where(JobMetric.job_id == job_id)
    return session.scalars(statement.order_by(JobMetric.name, JobMetric.step)).all()


def _owned(owner_id: str) -> Select[Job]:
    return select(Job).where(Job.owner_id == owner_id)
