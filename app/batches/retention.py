"""Ended batches go once their jobs are gone and they have been kept as long as the settings say."""

from datetime import datetime

from sqlalchemy import delete, exists
from sqlalchemy.orm import Session, sessionmaker

from app.batches.tables import Batch
from app.jobs.tables import Job


def expire_batches(sessions: sessionmaker[Session], before: datetime) -> int:
    """Delete batches without jobs that ended before this moment; how many that were."""
    with sessions.begin() as session:
        old = delete(Batch).where(Batch.finished_at < before, ~exists().where(Job.batch_id == Batch.id))
        return len(session.scalars(old.returning(Batch.id)).all())
