"""Rows for what an attempt leaves to the next one. Object first, then row; rows go with the job's end.

An object without a row is nobody's: of a worker that died in between, or of a job that has ended. `sweep`
deletes such. Nothing but `sweep` commits here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Integer, cast, delete, exists, select
from sqlalchemy.orm import Session, sessionmaker

from app.jobs.states import ACTIVE, ENDED
from app.jobs.tables import Job, JobCheckpoint, JobEvent, JobMetric
from app.storage.keys import CHECKPOINTS, checkpoint_key
from app.storage.store import Store

UPLOADING: Final = timedelta(hours=1)  # from object to row; longer than any upload takes

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reached:
    """Where an attempt stood when it made a part, and how much of its story was told by then."""

    part: str
    stage: str
    epoch: int
    step: int
    event_seq: int
    warnings: int


@dataclass(frozen=True)
class Kept:
    """The part's object in the storage."""

    key: str
    bytes: int
    sha256: str


def of_job(session: Session, job_id: str) -> Sequence[JobCheckpoint]:
    """The parts, the network first."""
    statement = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id).order_by(JobCheckpoint.part)
    return session.scalars(statement).all()


def record(
    session: Session, job_id: str, owner: str, reached: Reached, kept: Kept, now: datetime
) -> list[str] | None:
    """Make this the job's latest; the keys that it replaces, or None if the lease is not the owner's.

    Training belongs to the network that it began with, so it goes where that is replaced.
    """
    ours = select(Job.id).where(Job.id == job_id, Job.lease_owner == owner, Job.status.in_(ACTIVE))
    if session.scalar(ours.with_for_update(key_share=True)) is None:
        return None
    replaced = delete(JobCheckpoint).where(JobCheckpoint.job_id == job_id)
    if reached.part != "network":
        replaced = replaced.where(JobCheckpoint.part == reached.part)
    keys = list(session.scalars(replaced.returning(JobCheckpoint.key)))
    session.add(
        JobCheckpoint(
            job_id=job_id,
            part=reached.part,
            key=kept.key,
            bytes=kept.bytes,
            sha256=kept.sha256,
            stage=reached.stage,
            epoch=reached.epoch,
            step=reached.step,
            event_seq=reached.event_seq,
            warnings=reached.warnings,
            created_at=now,
        )
    )
    return keys


def drop(session: Session, *job_ids: str) -> None:
    """Forget the jobs' checkpoints."""
    session.execute(delete(JobCheckpoint).where(JobCheckpoint.job_id.in_(job_ids)))


def rewind(session: Session, job: Job) -> Sequence[JobCheckpoint]:
    """Bring a job's metrics and warnings to where its next attempt begins; what that one begins with."""
    parts = of_job(session, job.id)
    reached = max((part.event_seq for part in parts), default=0)
    told = max((part.warnings for part in parts), default=0)
    job.warnings = job.warnings[:told]
    stale = delete(JobMetric).where(JobMetric.job_id == job.id)
    if parts:
        stale = stale.where(
            exists().where(
                JobEvent.job_id == job.id,
                JobEvent.type == "metric",
                JobEvent.seq > reached,
                JobEvent.data["name"].astext == JobMetric.name,
                cast(JobEvent.data["step"].astext, Integer) == JobMetric.step,
            )
        )
    session.execute(stale)
    return parts


def delete_objects(store: Store, keys: Iterable[str]) -> None:
    """After the commit. What cannot be deleted now is left for `sweep`."""
    for key in keys:
        try:
            store.delete_at(key)
        except Exception as error:  # whatever a storage raises
            log.warning("checkpoint.not_deleted", key=key, error=str(error).partition("\n")[0])


def tidy(sessions: sessionmaker[Session], store: Store, job_id: str) -> None:
    """Delete what an ended job left and no row names. What cannot be deleted now is left for `sweep`."""
    try:
        found = store.keys_under(checkpoint_key(job_id, ""))
        if not found:
            return
        with sessions() as session:
            named = {part.key for part in of_job(session, job_id)}
    except Exception as error:  # whatever a storage raises
        log.warning("checkpoint.not_tidied", job_id=job_id, error=str(error).partition("\n")[0])
        return
    delete_objects(store, set(found) - named)


def sweep(sessions: sessionmaker[Session], store: Store, now: datetime, keep_lost: timedelta) -> int:
    """Delete objects that no row names, and what failed jobs left after `keep_lost`; how many objects.

    A job that used up its attempts keeps its checkpoint that long, for whoever looks for the reason.
    """
    with sessions.begin() as session:
        old = (
            select(Job.id)
            .where(Job.status.in_(ENDED), Job.finished_at < now - keep_lost)
            .where(exists().where(JobCheckpoint.job_id == Job.id))
        )
        session.execute(delete(JobCheckpoint).where(JobCheckpoint.job_id.in_(old)))
    found = store.keys_under(CHECKPOINTS, now - UPLOADING)
    with sessions() as session:
        named = set(session.scalars(select(JobCheckpoint.key)))
    orphans = [key for key in found if key not in named]
    delete_objects(store, orphans)
    return len(orphans)
