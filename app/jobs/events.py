"""A job's events: rows numbered without gaps, written in the transaction of what they report."""

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
    type: EventType,  # noqa: A002 - the contract's own word
    stage: str | None,
    message: str,
    data: dict[str, Any],
    now: datetime,
) -> JobEvent:
    """Add the job's next event. The job's row is locked until commit, so numbers come in the order of commits
    and a reader who has seen number n has seen all before it.
    """
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
    last = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id))
    event = JobEvent(
        id=new_id("event", now),
        job_id=job_id,
        seq=(last or 0) + 1,
        type=type,
        stage=stage,
        message=message,
        data=data,
        created_at=now,
    )
    session.add(event)
    session.flush()
    return event
