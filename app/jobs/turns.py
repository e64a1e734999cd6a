"""Whose job is next: owners take turns, and so do an owner's batches.

A message in the broker says that there is work, not which: a worker takes the first job of whoever has the
fewest running and, of those, has waited longest for a turn. So a single job does not wait for the thousand
that somebody else has sent before. Nothing here commits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.jobs.states import ACTIVE, JobStatus
from app.jobs.tables import Job, Turn
from app.jobs.waiting import is_due

SINGLE: Final = ""  # an owner's jobs that belong to no batch
NEVER: Final = datetime.min.replace(tzinfo=UTC)
Part = tuple[str, str]  # owner, batch


@dataclass(frozen=True)
class Waiting:
    """Jobs of one owner and batch that wait, and what stands for and against their turn."""

    part: Part
    first: str  # the id of the oldest
    owner_running: int = 0
    owner_served: datetime = NEVER
    running: int = 0
    served: datetime = NEVER


def in_turn(waiting: Iterable[Waiting]) -> list[Waiting]:
    """The first one first."""
    return sorted(waiting, key=lambda w: (w.owner_running, w.owner_served, w.running, w.served, w.first))


def next_job(session: Session, now: datetime) -> str | None:
    """The id of the job whose turn it is, its row locked; None if nothing waits that nobody else holds."""
    for candidate in in_turn(_waiting(session, now)):
        owner_id, batch_id = candidate.part
        same = Job.batch_id.is_(None) if batch_id == SINGLE else Job.batch_id == batch_id
        job_id = session.scalar(
            select(Job.id)
            .where(_waits(now), Job.owner_id == owner_id, same)
            .order_by(Job.id)
            .limit(1)
            .with_for_update(skip_locked=True, key_share=True)
        )
        if job_id is not None:
            return job_id
    return None


def ring_for_next(session: Session, now: datetime) -> str | None:
    """A job that waits and is to be rung for after the commit; None if there is none, or others see to it."""
    waits = select(Job.id).where(_waits(now)).order_by(Job.created_at).limit(1)
    job_id = session.scalar(waits.with_for_update(skip_locked=True, key_share=True))
    if job_id is not None:
        session.execute(update(Job).where(Job.id == job_id).values(rung_at=now))
    return job_id


def take(session: Session, job: Job, now: datetime) -> None:
    """Note that the job's owner and batch have had their turn."""
    part = {"owner_id": job.owner_id, "batch_id": job.batch_id or SINGLE, "served_at": now}
    statement = insert(Turn).values(**part)
    session.execute(
        statement.on_conflict_do_update(index_elements=["owner_id", "batch_id"], set_={"served_at": now})
    )


def forget(session: Session, before: datetime) -> None:
    """Delete turns so old that they decide nothing any more."""
    session.execute(delete(Turn).where(Turn.served_at < before))


def _waits(now: datetime) -> ColumnElement[bool]:
    return (Job.status == JobStatus.QUEUED) & is_due(Job.not_before, now)


def _waiting(session: Session, now: datetime) -> list[Waiting]:
    part = (Job.owner_id, func.coalesce(Job.batch_id, SINGLE))
    first = select(*part, func.min(Job.id)).where(_waits(now)).group_by(*part)
    found: dict[Part, str] = {(owner, batch): job_id for owner, batch, job_id in session.execute(first)}
    if len(found) < 2:
        return [Waiting(part, job_id) for part, job_id in found.items()]
    busy = select(*part, func.count()).where(Job.status.in_(ACTIVE)).group_by(*part)
    running: dict[Part, int] = {(owner, batch): number for owner, batch, number in session.execute(busy)}
    turns = select(Turn).where(Turn.owner_id.in_({owner for owner, _ in found}))
    served: dict[Part, datetime] = {(t.owner_id, t.batch_id): t.served_at for t in session.scalars(turns)}
    return [
        Waiting(
            (owner, batch),
            job_id,
            owner_running=sum(number for part, number in running.items() if part[0] == owner),
            owner_served=max((at for part, at in served.items() if part[0] == owner), default=NEVER),
            running=running.get((owner, batch), 0),
            served=served.get((owner, batch), NEVER),
        )
        for (owner, batch), job_id in found.items()
    ]
