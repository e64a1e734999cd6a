"""What a job's child says, written to the database in small transactions, each followed by a ring."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.jobs import events
from app.jobs.checkpoints import Reached
from app.jobs.states import ACTIVE
from app.jobs.tables import Job, JobMetric
from worker.attempt import persistently
from worker.carrier import Carrier
from worker.messages import (
    CheckpointMessage,
    MetricMessage,
    ProgressMessage,
    RestartMessage,
    Said,
    StageMessage,
    WarningMessage,
)
from worker.runtime import Runtime

FLUSH_SECONDS: Final = 0.5  # stages go at once, the rest waits for company
PROGRESS_SECONDS: Final = 1.0  # between two progress events
PROGRESS_STEP: Final = 0.01  # of the fraction; a slower job's progress event comes every 10 s
PROGRESS_SILENCE_SECONDS: Final = 10.0
# A child that says more than this is broken or hostile: its words are dropped, its work goes on.
MOST_POINTS: Final = 100_000
MOST_EVENTS: Final = 20_000
MOST_WAITING: Final = 10_000  # while the database is away

log = structlog.get_logger(__name__)


class JobReporter:
    """Stages, progress, metrics and warnings of one attempt; its checkpoints go on to the carrier.

    `warnings` are those that the job had when the attempt began.
    """

    def __init__(
        self, runtime: Runtime, job_id: str, owner: str, warnings: list[dict[str, Any]], carrier: Carrier
    ) -> None:
        self._runtime = runtime
        self._job_id = job_id
        self._owner = owner
        self._carrier = carrier
        self._waiting: list[Said] = []
        self._reached: list[tuple[str, Reached]] = []
        self._warnings = list(warnings)
        self._stage: str | None = None
        self._running: tuple[str, float] | None = None  # the stage at work and when it was said to begin
        self._points = 0
        self._events = 0
        self._flushed = self._progress_at = -PROGRESS_SILENCE_SECONDS
        self._progress_fraction = -1.0
        self._urgent = False

    def take(self, said: Said) -> None:
        if isinstance(said, StageMessage):
            self.finish_stage()
            self._running = (said.stage.value, time.monotonic())
            log.info("stage.started", stage=said.stage.value)
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(said)
            self._urgent = self._urgent or isinstance(said, (StageMessage, CheckpointMessage))

    def finish_stage(self) -> None:
        """The stage at work has come to its end: the next one begins, or the result is there."""
        if self._running is None:
            return
        stage, began = self._running
        self._running = None
        seconds = time.monotonic() - began
        self._runtime.telemetry.work.stage_seconds.labels(stage).observe(seconds)
        log.info("stage.finished", stage=stage, seconds=round(seconds, 3))

    def flush(self) -> None:
        now = time.monotonic()
        if self._waiting and (self._urgent or now - self._flushed >= FLUSH_SECONDS):
            self.write()

    def write(self) -> None:
        """Write everything now. A database that is away is tried again at the next call."""
        try:
            self._write_all()
        except SQLAlchemyError as error:
            log.warning("report.delayed", job_id=self._job_id, error=type(error).__name__)

    def write_last(self, is_over: Callable[[], bool]) -> None:
        """The same when no call follows: while the database is away again and again, until `is_over`."""
        try:
            persistently(self._write_all, is_over)
        except SQLAlchemyError as error:
            log.warning("report.lost", job_id=self._job_id, error=type(error).__name__)

    def _write_all(self) -> None:
        self._flushed = time.monotonic()
        kept = (self._stage, list(self._warnings), self._points, self._events)
        try:
            with self._runtime.sessions.begin() as session:
                self._write(session, self._runtime.clock.now())
        except SQLAlchemyError:
            self._stage, self._warnings, self._points, self._events = kept
            self._reached.clear()
            raise
        self._waiting.clear()
        self._urgent = False
        for file, reached in self._reached:
            self._carrier.take(file, reached)
        self._reached.clear()
        self._runtime.waker.wake(self._job_id)

    def _write(self, session: Session, now: datetime) -> None:
        ours = update(Job).where(
            Job.id == self._job_id, Job.lease_owner == self._owner, Job.status.in_(ACTIVE)
        )
        # The id alone: the row is locked and checked.
        if session.scalar(ours.values(id=self._job_id).returning(Job.id)) is None:
            return  # the lease is somebody else's; the heartbeat finds out as well
        values: dict[str, Any] = {}
        for said in self._waiting:
            values |= self._values(said)
            self._write_event(session, said, now)
        if values:
            session.execute(ours.values(**values))
        self._write_metrics(session, now)

    def _values(self, said: Said) -> dict[str, Any]:
        """The row's columns that the message changes."""
        if isinstance(said, StageMessage):
            return {"stage": said.stage.value}
        if isinstance(said, ProgressMessage):
            return {"progress": _progress(said)}
        if isinstance(said, RestartMessage):
            self._warnings.clear()
        elif isinstance(said, WarningMessage):
            self._warnings.append(said.model_dump(exclude={"type"}, exclude_none=True))
        else:
            return {}
        return {"warnings": self._warnings[:1000]}

    def _write_event(self, session: Session, said: Said, now: datetime) -> None:
        document = said.model_dump(exclude={"type"}, exclude_none=True)
        if isinstance(said, StageMessage):
            self._stage = said.stage.value
            self._event(session, "stage", self._stage, {}, now)
        elif isinstance(said, ProgressMessage) and self._is_due(said):
            self._event(session, "progress", said.message, _progress(said), now)
        elif isinstance(said, WarningMessage):
            self._event(session, "warning", said.detail, document, now)
        elif isinstance(said, MetricMessage):
            self._event(session, "metric", f"{said.name} {said.value:.6g}", document, now)
        elif isinstance(said, RestartMessage):
            session.execute(delete(JobMetric).where(JobMetric.job_id == self._job_id))
            self._event(session, "warning", "All is done anew: " + said.reason, document, now)
        elif isinstance(said, CheckpointMessage):
            self._reached.append((said.file, self._reach(session, said)))

    def _reach(self, session: Session, said: CheckpointMessage) -> Reached:
        told = events.last_seq(session, self._job_id)
        return Reached(said.part, said.stage.value, said.epoch, said.step, told, len(self._warnings))

    def _is_due(self, said: ProgressMessage) -> bool:
        silence = time.monotonic() - self._progress_at
        moved = abs(said.fraction - self._progress_fraction) >= PROGRESS_STEP
        if silence < PROGRESS_SECONDS or not (moved or silence >= PROGRESS_SILENCE_SECONDS):
            return False
        self._progress_at, self._progress_fraction = time.monotonic(), said.fraction
        return True

    def _event(
        self, session: Session, kind: events.EventType, message: str, data: dict[str, Any], now: datetime
    ) -> None:
        self._events += 1
        if self._events <= MOST_EVENTS:
            events.append(session, self._job_id, kind, self._stage, message, data, now)

    def _write_metrics(self, session: Session, now: datetime) -> None:
        points = {(m.name, m.step): m for m in self._waiting if isinstance(m, MetricMessage)}
        self._points += len(points)
        if not points or self._points > MOST_POINTS:
            return
        rows = [
            {"job_id": self._job_id, "name": m.name, "step": m.step, "value": m.value, "at": now}
            for m in points.values()
        ]
        statement = insert(JobMetric).values(rows)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["job_id", "name", "step"],
                set_={"value": statement.excluded.value, "at": statement.excluded.at},
            )
        )


def _progress(said: ProgressMessage) -> dict[str, Any]:
    return said.model_dump(include={"fraction", "epoch", "eta_seconds"}, exclude_none=True)


class SilentReporter:
    """For inspections, which have no events: remembers how far one came, should it end there."""

    def __init__(self) -> None:
        self.step = ""

    def take(self, said: Said) -> None:
        if isinstance(said, ProgressMessage) and said.message:
            self.step = said.message

    def flush(self) -> None:
        """There is nothing to write."""
