"""The number of jobs in each status, read from the database when the metrics are."""

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.jobs.states import JobStatus
from app.jobs.tables import Job


class JobCollector(Collector):
    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def describe(self) -> list[GaugeMetricFamily]:
        return [_jobs_family({})]  # so that registering asks no database

    def collect(self) -> list[GaugeMetricFamily]:
        statement = select(Job.status, func.count().label("number")).group_by(Job.status)
        try:
            with self._sessions() as session:
                counts = {row.status: row.number for row in session.execute(statement)}
        except SQLAlchemyError:
            return []  # the process's own figures matter most when the database is away
        return [_jobs_family(counts)]


def _jobs_family(counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("basisconv_jobs", "Jobs in each status.", labels=["status"])
    for status in JobStatus:
        family.add_metric([status.value], counts.get(status.value, 0))
    return family
