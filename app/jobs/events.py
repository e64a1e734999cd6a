"""What happened to a job, numbered without gaps. The rows are the truth; the bus only says "look again"."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, insert, select
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


def first(job_id: str, now: datetime) -> JobEvent:
    """The event with which a new job begins; the caller adds it."""
    return JobEvent(
        id=new_id("event", now),
        job_id=job_id,
        seq=1,
        type="progress",
        stage=None,
        message="Waiting for a worker",
        data={},
        created_at=now,
    )


def append_to_each(
    session: Session,
    job_ids: Sequence[str],
    type: EventType,  # noqa: A002 - the contract's name of the field
    message: str,
    data: dict[str, Any],
    now: datetime,
) -> None:
    """Add an event to each of many jobs, whose rows the caller has locked."""
    numbers = select(JobEvent.job_id, func.max(JobEvent.seq)).group_by(JobEvent.job_id)
    rows = session.execute(numbers.where(JobEvent.job_id.in_(job_ids))).all()
    last = {row.job_id: row[1] for row in rows}
    session.execute(
        insert(JobEvent),
        [
            {
                "id": new_id("event", now),
                "job_id": job_id,
                "seq": last.get(job_id, 0) + 1,
                "type": type,
                "stage": None,
                "message": message,
                "data": data,
                "created_at": now,
            }
            for job_id in job_ids
        ],
    )


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
