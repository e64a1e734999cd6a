"""The end of a batch: in the transaction in which its last job ends, exactly once.

Whoever ends a job holds its row and then takes the batch's: of two last jobs that end at once the second
waits, and sees the first one's end. Rows of jobs are locked before those of batches everywhere, or two would
wait for each other.
"""

from datetime import datetime

from sqlalchemy import case, exists, select, update
from sqlalchemy.orm import Session

from app.batches import repository
from app.batches.states import OPEN, BatchStatus
from app.batches.tables import Batch
from app.jobs.states import ENDED, JobStatus
from app.jobs.tables import Job
from app.webhooks import outbox

UNFINISHED = tuple(status for status in JobStatus if status not in ENDED)


def after_job(session: Session, job_id: str, now: datetime) -> None:
    """Close the job's batch, if it has one and this was its last."""
    batch_id = session.scalar(select(Job.batch_id).where(Job.id == job_id))
    if batch_id is not None:
        close_if_over(session, batch_id, now)


def close_if_over(session: Session, batch_id: str, now: datetime) -> BatchStatus | None:
    """How the batch has just ended; None while a job of it has not, or when it ended before."""
    session.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update(key_share=True))
    unfinished = exists().where(Job.batch_id == batch_id, Job.status.in_(UNFINISHED))
    asked = Batch.status == BatchStatus.CANCELLING
    closed = session.scalar(
        update(Batch)
        .where(Batch.id == batch_id, Batch.status.in_(OPEN), ~unfinished)
        .values(
            status=case((asked, BatchStatus.CANCELLED.value), else_=BatchStatus.COMPLETED.value),
            finished_at=now,
        )
        .returning(Batch)
        .execution_options(populate_existing=True)
    )
    if closed is None:
        return None
    if closed.status == BatchStatus.COMPLETED:
        counts = repository.counts(session, [batch_id])[batch_id]
        outbox.batch_completed(session, closed, counts, now)
    return BatchStatus(closed.status)
