"""What happened to a job, numbered without gaps. The rows are the truth; the bus only says "look again"."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.ids import new_id
from app.jobs.tables import Job, JobEvent

EventType = Literal["stage", "progress", "metric", "warning", "error", "done"]


def append(
    session: Session,
    job_id: str,
    type: EventType,  # noqa: A002 - the contract's name of the field
    stage: str | None,
    message: str,
    data: dict[str, Any],
    now: datetime,
) -> JobEvent:
    """Add an event with the next number.

    The job's row is locked until the transaction ends: writers of one job take turns, so numbers are in the
    order of commit and a reader that has seen 17 has seen everything before it. NO KEY UPDATE leaves foreign
    keys to the row unhindered.
    """
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update(key_share=True))
    event = JobEvent(
        id=new_id("event", now),
        job_id=job_id,
        seq=last_seq(session, job_id) + 1,
        type=type,
        stage=stage,
        message=message,
        data=data,
        created_at=now,
    )
    session.add(event)
    session.flush()
    return event


def after(session: Session, job_id: str, seq: int, limit: int) -> Sequence[JobEvent]:
    """The events that follow number `seq`, in order."""
    statement = (
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.seq > seq)
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    return session.scalars(statement).all()


def last_seq(session: Session, job_id: str) -> int:
    """The number of the newest event, 0 before the first."""
    return session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id)) or 0
