"""Looks for work that lost its worker or its message, and hands it on."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.db import AWAY
from app.core.errors import WorkerLost
from app.core.metrics import NO_CODE, WorkMetrics
from app.core.queue import Doorbell, TaskName
from app.core.rounds import Rounds
from app.core.settings import Settings
from app.datasets.tables import Dataset
from app.jobs import checkpoints, leases
from app.jobs.silence import Held, Silence
from app.jobs.states import ACTIVE, ENDED, JobStatus
from app.jobs.tables import Job
from app.jobs.waiting import is_due
from app.models.tables import Model
from app.plans.tables import Plan
from app.storage.store import Store

Leasable = leases.Short | type[Job]

LOST_AT_ONCE: Final = 200
# Rung again per round, oldest first: enough to wake idle workers, and a long queue does not flood the broker.
RUNG_AT_ONCE: Final = 50
SHORT_WORK: Final[tuple[tuple[leases.Short, TaskName], ...]] = (
    (Model, "worker.inspect_model"),
    (Dataset, "worker.inspect_dataset"),
    (Plan, "worker.plan"),
)
SILENT: Final = "its worker fell silent"

log = structlog.get_logger(__name__)


class Waker(Protocol):
    """Tells whoever follows a job that its row or its events have changed."""

    def wake(self, job_id: str) -> None: ...


class Reaper(Rounds):
    name = "reaper"
    lock = 0x42617369  # "Basi"

    def __init__(
        self,
        sessions: sessionmaker[Session],
        store: Store,
        doorbell: Doorbell,
        clock: Clock,
        settings: Settings,
        waker: Waker | None = None,
        metrics: WorkMetrics | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(sessions, clock, settings.reaper_seconds)
        self._store = store
        self._doorbell = doorbell
        self._settings = settings
        self._waker = waker
        self._metrics = metrics or WorkMetrics()
        self._silence: dict[Leasable, Silence] = {
            table: Silence(
                settings.lease_seconds, settings.heartbeat_seconds, settings.reaper_seconds, steady
            )
            for table in (Job, Model, Dataset, Plan)
        }
        self._retries = leases.Retries(settings.max_attempts, settings.retry_seconds)

    def sweep(self) -> None:
        try:
            super().sweep()
        except AWAY:  # for the workers too: their silence meanwhile says nothing
            for silence in self._silence.values():
                silence.forget()
            raise

    def _round(self, now: datetime) -> None:
        self._hand_on_jobs(now)
        for table, _ in SHORT_WORK:
            self._hand_on_short(table, now)
        self._ring_jobs(now)
        for table, task in SHORT_WORK:
            self._ring_short(table, task, now)

    def _hand_on_jobs(self, now: datetime) -> None:
        with self._sessions.begin() as session:
            outcomes: dict[str, JobStatus | None] = {}
            for job_id, owner in self._lost(session, Job, ACTIVE, now):
                outcomes[job_id] = leases.lose_job(session, job_id, owner, self._retries, SILENT, now)
        for job_id, status in outcomes.items():
            log.warning("reaper.job_handed_on", job_id=job_id, status=status)
            self._metrics.lease_expired("job", status)
            if status == JobStatus.FAILED:
                self._metrics.jobs_ended.labels(status, WorkerLost.code).inc()
            elif status == JobStatus.CANCELLED:
                self._metrics.jobs_ended.labels(status, NO_CODE).inc()
            if status in ENDED:
                checkpoints.tidy(self._sessions, self._store, job_id)
            if self._waker is not None:
                self._waker.wake(job_id)

    def _hand_on_short(self, table: leases.Short, now: datetime) -> None:
        outcomes: dict[str, str | None] = {}
        with self._sessions.begin() as session:
            for resource_id, owner in self._lost(session, table, (table.waiting,), now):
                status = leases.lose_short(session, table, resource_id, owner, self._retries, SILENT, now)
                outcomes[resource_id] = status
        work = table.__tablename__.removesuffix("s")
        for resource_id, status in outcomes.items():
            log.warning("reaper.short_handed_on", resource_id=resource_id, status=status)
            self._metrics.lease_expired(work, status)
            if status == table.refused:
                self._metrics.short_ended(work, status, WorkerLost.code)

    def _lost(
        self, session: Session, table: Leasable, statuses: tuple[str, ...], now: datetime
    ) -> list[tuple[str, str]]:
        """Rows whose worker is gone, with its token; locked."""
        lost = self._silence[table].lost(_held(session, table, statuses), now)
        return [(held.id, held.owner) for held in lost[:LOST_AT_ONCE] if _is_still(session, table, held)]

    def _ring_jobs(self, now: datetime) -> None:
        waiting = Job.status == JobStatus.QUEUED
        self._ring(Job, "worker.run_job", waiting, now)

    def _ring_short(self, table: leases.Short, task: TaskName, now: datetime) -> None:
        waiting = (table.status == table.waiting) & table.lease_owner.is_(None)
        self._ring(table, task, waiting, now)

    def _ring(self, table: Leasable, task: TaskName, waiting: Any, now: datetime) -> None:
        while_ago = timedelta(seconds=self._settings.ring_again_seconds)
        with self._sessions() as session:
            oldest = (
                select(table.id, table.rung_at, table.not_before)
                .where(waiting, is_due(table.not_before, now))
                .order_by(table.created_at)
                .limit(RUNG_AT_ONCE)
                .subquery()
            )
            unheard = or_(
                oldest.c.rung_at.is_(None),
                oldest.c.rung_at < now - while_ago,
                oldest.c.rung_at > now + while_ago,  # by a clock that was put back since
                oldest.c.rung_at <= oldest.c.not_before,
            )
            ids = list(session.scalars(select(oldest.c.id).where(unheard)))
        for resource_id in ids:
            if not self._doorbell.ring(task, resource_id):
                return  # the broker is away; the next round tries again
            with self._sessions.begin() as session:
                session.execute(update(table).where(table.id == resource_id).values(rung_at=now))
            log.info("reaper.rung", task=task, resource_id=resource_id)


def _held(session: Session, table: Leasable, statuses: tuple[str, ...]) -> list[Held]:
    """All leases; there are as many as workers."""
    rows = session.execute(
        select(table.id, table.lease_owner, table.lease_expires_at).where(
            table.status.in_(statuses), table.lease_owner.is_not(None), table.lease_expires_at.is_not(None)
        )
    )
    return [Held(row_id, owner, until) for row_id, owner, until in rows if owner and until]


def _is_still(session: Session, table: Leasable, held: Held) -> bool:
    """Lock the row if its lease is as it was: a worker's late renewal waits and then sees the loss."""
    row = (
        select(table.id)
        .where(table.id == held.id, table.lease_owner == held.owner, table.lease_expires_at == held.until)
        .with_for_update(skip_locked=True)
    )
    return session.scalar(row) is not None
