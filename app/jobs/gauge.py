"""How much work waits and how long already, read from the database when the metrics are asked for."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.datasets.tables import Dataset
from app.jobs.states import ENDED, JobStatus
from app.jobs.tables import Job
from app.models.tables import Model
from app.plans.tables import Plan

# What waits in which queue: the rows are the truth, a message in the broker is only a ring.
_WAITING: Final[tuple[tuple[str, str, Any, ColumnElement[bool]], ...]] = (
    ("jobs", "job", Job, Job.status == JobStatus.QUEUED),
    ("quick", "model", Model, (Model.status == "inspecting") & Model.lease_owner.is_(None)),
    ("quick", "dataset", Dataset, (Dataset.status == "inspecting") & Dataset.lease_owner.is_(None)),
    ("quick", "plan", Plan, (Plan.status == "queued") & Plan.lease_owner.is_(None)),
)

log = structlog.get_logger()


def families(sessions: sessionmaker[Session], clock: Clock) -> Iterable[Metric]:
    """Nothing when the database is away: the process's own figures matter most then."""
    try:
        with sessions() as session:
            return [_jobs(session), *_queues(session, clock.now()), _size(session)]
    except SQLAlchemyError as error:
        log.warning("metrics.without_database", error=type(error).__name__)
        return []


def _jobs(session: Session) -> Metric:
    """Those that have not ended: counting the others would read their whole index, month after month more."""
    family = GaugeMetricFamily("basisconv_jobs", "Jobs that wait or run, by status.", labels=["status"])
    active = [status for status in JobStatus if status not in ENDED]
    statement = select(Job.status, func.count().label("number")).where(Job.status.in_(active))
    counts = {row.status: row.number for row in session.execute(statement.group_by(Job.status))}
    for status in active:
        family.add_metric([status.value], counts.get(status.value, 0))
    return family


def _queues(session: Session, now: datetime) -> list[Metric]:
    length = GaugeMetricFamily(
        "basisconv_queue_length", "Work that waits for a worker.", labels=["queue", "work"]
    )
    age = GaugeMetricFamily(
        "basisconv_queue_oldest_seconds",
        "Since the oldest of it was accepted; 0 when nothing waits.",
        labels=["queue", "work"],
    )
    for queue, work, table, waits in _WAITING:
        number, oldest = session.execute(select(func.count(), func.min(table.created_at)).where(waits)).one()
        length.add_metric([queue, work], number)
        age.add_metric([queue, work], 0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0))
    return [length, age]


def _size(session: Session) -> Metric:
    family = GaugeMetricFamily("basisconv_database_bytes", "What the database takes on its disk.")
    family.add_metric([], session.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    return family
