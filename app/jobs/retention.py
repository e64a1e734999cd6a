"""Ended jobs go, with all they made, once they have been kept as long as the settings say."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.jobs import checkpoints, service
from app.jobs.states import ENDED
from app.jobs.tables import Job
from app.storage.references import release_objects
from app.storage.store import Store

_AT_ONCE: Final = 100  # in one transaction

log = structlog.get_logger()


def expire_jobs(sessions: sessionmaker[Session], store: Store, before: datetime) -> int:
    """Delete the jobs that ended before this moment, oldest first; how many that were."""
    deleted = 0
    while True:
        with sessions.begin() as session:
            jobs = _ended(session, before)
            hashes = [sha256 for job in jobs for sha256 in service.remove(session, job)]
        release_objects(sessions, store, hashes)
        for job in jobs:
            checkpoints.tidy(sessions, store, job.id)
        deleted += len(jobs)
        for job in jobs:
            log.info("job.expired", job=job.id, finished_at=str(job.finished_at))
        if len(jobs) < _AT_ONCE:
            return deleted


def _ended(session: Session, before: datetime) -> Sequence[Job]:
    ended = (
        select(Job)
        .where(Job.status.in_(ENDED), Job.finished_at < before)
        .order_by(Job.finished_at)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)  # somebody may be deleting it by hand
    )
    return session.scalars(ended).all()
