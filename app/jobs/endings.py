"""What follows from a job's end, in the same transaction: its last events, what webhooks are told of it, and
with the last job its batch's end.

Only for whoever has just moved the jobs into an ended status: they hold the jobs' rows.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.batches import closing
from app.jobs import checkpoints, events
from app.jobs.states import JobStatus
from app.webhooks import outbox

CANCELLED = "The job was cancelled"


def append_done(
    session: Session,
    job_id: str,
    status: JobStatus,
    stage: str | None,
    now: datetime,
    problem: dict[str, Any] | None = None,
) -> None:
    """The last events of one job."""
    if problem is not None:
        events.append(session, job_id, "error", stage, str(problem.get("detail", "")), problem, now)
    message = f"The job has {status.value}" if status is not JobStatus.CANCELLED else CANCELLED
    events.append(session, job_id, "done", stage, message, {"status": status.value}, now)
    outbox.jobs_ended(session, [job_id], status, now)
    closing.after_job(session, job_id, now)


def cancelled_waiting(session: Session, ids: Sequence[str], now: datetime) -> None:
    """The same for many jobs that were cancelled while they waited; the caller closes their batch."""
    if ids:
        events.append_to_each(session, ids, "done", CANCELLED, {"status": JobStatus.CANCELLED.value}, now)
        checkpoints.drop(session, *ids)
        outbox.jobs_ended(session, ids, JobStatus.CANCELLED, now)
