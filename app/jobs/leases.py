"""Who works on what: claims, renewals and endings of leased rows, each a compare-and-set on its owner.

A lease's owner is a token made anew for every claim, so a message delivered twice, a worker that was believed
dead or a reaper that comes late changes nothing that is no longer its own. Nothing here commits.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Update, func, select, update
from sqlalchemy.orm import Session

from app.core.errors import Problem, WorkerLost
from app.datasets.tables import Dataset
from app.jobs import checkpoints, events
from app.jobs.endings import append_done
from app.jobs.states import ACTIVE, JobStatus, sources
from app.jobs.tables import Job, JobCheckpoint
from app.jobs.waiting import LONGEST_WAIT_SECONDS, is_due
from app.models.tables import Model
from app.plans.tables import Plan

Short = type[Model] | type[Dataset] | type[Plan]  # rows of short work: inspections and plans
EVENTS_TELL = "The job's events tell how each attempt ended, with the last words of its process."


@dataclass(frozen=True)
class Lease:
    """One worker's claim on one row."""

    owner: str
    seconds: float

    def until(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Retries:
    """How often lost work is tried, and how long it waits before it is."""

    max_attempts: int
    first_wait_seconds: float

    def not_before(self, attempt: int, now: datetime) -> datetime:
        wait = self.first_wait_seconds * 2.0 ** max(attempt - 1, 0)
        return now + timedelta(seconds=min(wait, LONGEST_WAIT_SECONDS))


def claim_job(session: Session, job_id: str, lease: Lease, now: datetime) -> Job | None:
    """The queued job, now running under this lease; None if it is not (no longer, not yet) to be had.

    Asked again for the same lease, it is the job that has it: a database that goes while it commits may have
    given it without saying so.
    """
    job = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED)
        .where(is_due(Job.not_before, now))
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=lease.owner,
            lease_expires_at=lease.until(now),
            not_before=None,
            stage=None,
            progress={},
            started_at=func.coalesce(Job.started_at, now),
        )
        .returning(Job)
    ).one_or_none()
    if job is None:
        return _own_job(session, job_id, lease.owner)
    parts = checkpoints.rewind(session, job)
    message = f"Attempt {job.attempt} started"
    if parts:
        message += f", from {_place(parts[-1])}"
    events.append(session, job_id, "progress", None, message, {}, now)
    return job


def _place(part: JobCheckpoint) -> str:
    where = f"the stage {part.stage}"
    return f"step {part.step} of {where}" if part.step else where


def claim_short(
    session: Session, table: Short, resource_id: str, lease: Lease, now: datetime
) -> Model | Dataset | Plan | None:
    """The upload to be inspected under this lease, or None if somebody has it or it is done.

    Asked again for the same lease, it is what has it, as in `claim_job`.
    """
    row = session.scalars(
        update(table)
        .where(table.id == resource_id, table.status == table.waiting, table.lease_owner.is_(None))
        .where(is_due(table.not_before, now))
        .values(
            attempt=table.attempt + 1,
            lease_owner=lease.owner,
            lease_expires_at=lease.until(now),
            not_before=None,
        )
        .returning(table)
    ).one_or_none()
    if row is None:
        return _own_short(session, table, resource_id, lease.owner)
    return cast("Model | Dataset | Plan", row)


def renew(
    session: Session, table: Short | type[Job], resource_id: str, lease: Lease, now: datetime
) -> str | None:
    """Prolong the lease and tell the row's status; None when the lease is no longer this worker's."""
    status: str | None = session.scalar(
        update(table)
        .where(table.id == resource_id, table.lease_owner == lease.owner)
        .values(lease_expires_at=lease.until(now))
        .returning(table.status)
    )
    return status


def status_of(session: Session, table: Short | type[Job], resource_id: str, owner: str) -> str | None:
    """The row's status while `owner` holds its lease, else None."""
    status: str | None = session.scalar(
        select(table.status).where(table.id == resource_id, table.lease_owner == owner)
    )
    return status


def _ended(job_id: str, owner: str, status: JobStatus, now: datetime) -> Update:
    return (
        update(Job)
        .where(Job.id == job_id, Job.lease_owner == owner, Job.status.in_(sources(status)))
        .values(status=status, finished_at=now, lease_owner=None, lease_expires_at=None)
    )


def succeed_job(session: Session, job_id: str, owner: str, result: dict[str, Any], now: datetime) -> bool:
    """Running → succeeded, with the job's one `done` event."""
    ending = _ended(job_id, owner, JobStatus.SUCCEEDED, now).values(
        result=result, progress={"fraction": 1.0}, error=None
    )
    return _done(session, ending, job_id, JobStatus.SUCCEEDED, now)


def fail_job(session: Session, job_id: str, owner: str, problem: dict[str, Any], now: datetime) -> bool:
    """Running → failed with a problem document, an `error` event and the job's one `done` event.

    Of one that used up its attempts the checkpoint is kept, for whoever looks for the reason.
    """
    ending = _ended(job_id, owner, JobStatus.FAILED, now).values(error=problem)
    return _done(session, ending, job_id, JobStatus.FAILED, now, problem)


def cancel_job(session: Session, job_id: str, owner: str, now: datetime) -> bool:
    """Cancelling → cancelled, with the job's one `done` event."""
    ending = _ended(job_id, owner, JobStatus.CANCELLED, now).where(Job.status == JobStatus.CANCELLING)
    return _done(session, ending, job_id, JobStatus.CANCELLED, now)


def _done(
    session: Session,
    ending: Update,
    job_id: str,
    status: JobStatus,
    now: datetime,
    problem: dict[str, Any] | None = None,
) -> bool:
    ended = session.execute(ending.returning(Job.stage)).one_or_none()
    if ended is None:
        return False
    if problem is None or problem.get("code") != WorkerLost.code:
        checkpoints.drop(session, job_id)
    append_done(session, job_id, status, ended.stage, now, problem)
    return True


def hand_back_job(session: Session, job_id: str, owner: str, now: datetime) -> JobStatus | None:
    """A worker that is asked to stop gives its job back: queued at once, and the attempt does not count."""
    job = _own_job(session, job_id, owner)
    if job is None:
        return None
    if job.status == JobStatus.CANCELLING:
        return _cancelled(session, job, now)
    job.attempt = max(job.attempt - 1, 0)
    _requeue(job, None, None)
    events.append(
        session, job_id, "warning", job.stage, "The worker stops; the job waits for another", {}, now
    )
    return JobStatus.QUEUED


def lose_job(
    session: Session,
    job_id: str,
    owner: str,
    retries: Retries,
    reason: str,
    now: datetime,
    last_words: str = "",
) -> JobStatus | None:
    """A child or worker is gone: queued again after a wait, failed when out of attempts, cancelled if asked.

    `last_words`: the end of what the child wrote to standard error, kept in the event of the lost attempt.
    None when `owner` no longer holds the lease.
    """
    job = _own_job(session, job_id, owner)
    if job is None:
        return None
    if job.status == JobStatus.CANCELLING:
        return _cancelled(session, job, now)
    message = f"Attempt {job.attempt} of {retries.max_attempts} was lost: {reason}"
    data = {"attempt": job.attempt} | ({"stderr": last_words} if last_words else {})
    events.append(session, job_id, "warning", job.stage, message, data, now)
    if job.attempt >= retries.max_attempts:
        problem = worker_lost(job.attempt, reason, EVENTS_TELL).document()
        fail_job(session, job_id, owner, problem, now)
        return JobStatus.FAILED
    _requeue(job, retries.not_before(job.attempt, now), now)
    return JobStatus.QUEUED


def worker_lost(attempts: int, reason: str, hint: str | None = None) -> Problem:
    return WorkerLost(f"All {attempts} attempts were lost; the last one: {reason}", hint=hint)


def _own_job(session: Session, job_id: str, owner: str) -> Job | None:
    held = select(Job).where(Job.id == job_id, Job.lease_owner == owner, Job.status.in_(ACTIVE))
    return session.scalars(held.with_for_update().execution_options(populate_existing=True)).one_or_none()


def _own_short(session: Session, table: Short, resource_id: str, owner: str) -> Model | Dataset | Plan | None:
    held = select(table).where(
        table.id == resource_id, table.lease_owner == owner, table.status == table.waiting
    )
    found = session.scalars(held.with_for_update().execution_options(populate_existing=True)).one_or_none()
    return cast("Model | Dataset | Plan | None", found)


def _cancelled(session: Session, job: Job, now: datetime) -> JobStatus | None:
    assert job.lease_owner is not None
    return JobStatus.CANCELLED if cancel_job(session, job.id, job.lease_owner, now) else None


def _requeue(job: Job, not_before: datetime | None, rung_at: datetime | None) -> None:
    job.status = JobStatus.QUEUED
    job.lease_owner = job.lease_expires_at = None
    job.not_before = not_before
    job.rung_at = rung_at
    job.stage = None
    job.progress = {}


def finish_short(
    session: Session, table: Short, resource_id: str, owner: str, values: dict[str, Any]
) -> bool:
    """Inspecting → ready or rejected (in `values`), unless the lease is somebody else's by now."""
    finished = session.scalar(
        update(table)
        .where(table.id == resource_id, table.lease_owner == owner, table.status == table.waiting)
        .values(lease_owner=None, lease_expires_at=None, **values)
        .returning(table.id)
    )
    return finished is not None


def hand_back_short(session: Session, table: Short, resource_id: str, owner: str) -> bool:
    """A worker that is asked to stop gives the upload back; the attempt does not count."""
    values = {"attempt": table.attempt - 1, "rung_at": None}
    return finish_short(session, table, resource_id, owner, values)


def lose_short(
    session: Session,
    table: Short,
    resource_id: str,
    owner: str,
    retries: Retries,
    reason: str,
    now: datetime,
) -> str | None:
    """A child or worker is gone: inspected again after a wait, or rejected when out of attempts."""
    row = _own_short(session, table, resource_id, owner)
    if row is None:
        return None
    if row.attempt >= retries.max_attempts:
        row.status, row.error = table.refused, worker_lost(row.attempt, reason).document()
    else:
        row.not_before = retries.not_before(row.attempt, now)
    row.lease_owner = row.lease_expires_at = None
    row.rung_at = now
    return row.status
