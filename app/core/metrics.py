"""What is counted. Each process has one registry of its own, made in its entry and passed on; `/metrics` of
the web process shows them all: its siblings' through a shared folder, the workers' through the broker.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.core.multiprocess import dead_processes, shared_folder
from app.core.queue import QUEUE_OF

# From a health check to a long upload; the default buckets end at 10 s.
_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
# From a small network's stage to a day of fine-tuning.
_WORK_SECONDS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
# From an idle worker to a long queue.
_WAIT_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400)
# Shown as 0 from the start: a counter that appears with its first event seems not to have grown.
_WORK: Final = ("job", "model", "dataset", "plan")
NO_CODE: Final = ""  # of work that ended without an error

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter, which nobody asks for


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    """Of the processes that live, their sum."""
    return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")


class WorkMetrics:
    """What becomes of jobs, inspections and plans: counted by workers, and by the web process's reaper."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.jobs_ended = Counter(
            "basisconv_jobs_ended",
            "Jobs that ended; `code` says why they failed.",
            ["status", "code"],
            registry=registry,
        )
        self.inspections_ended = Counter(
            "basisconv_inspections_ended",
            "Uploads that became ready or rejected; `code` says why.",
            ["kind", "status", "code"],
            registry=registry,
        )
        self.plans_ended = Counter(
            "basisconv_plans_ended",
            "Plans that became ready or failed; `code` says why.",
            ["status", "code"],
            registry=registry,
        )
        self.attempts_lost = Counter(
            "basisconv_attempts_lost",
            "Attempts that ended without an outcome: their child died, or their worker fell silent.",
            ["work", "cause"],
            registry=registry,
        )
        self.leases_expired = Counter(
            "basisconv_leases_expired",
            "Leases that no worker renewed in time, found by the reaper.",
            ["work"],
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "basisconv_wait_seconds",
            "From acceptance to the start of the first attempt.",
            ["work"],
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "basisconv_stage_seconds",
            "Finished stages of jobs.",
            ["stage"],
            buckets=_WORK_SECONDS,
            registry=registry,
        )
        self.attempt_seconds = Histogram(
            "basisconv_attempt_seconds",
            "Attempts from claim to end, by how they ended.",
            ["work", "ending"],
            buckets=_WORK_SECONDS,
            registry=registry,
        )

        for work in _WORK:
            self.leases_expired.labels(work)
            for cause in ("child", "silence"):
                self.attempts_lost.labels(work, cause)

    def lease_expired(self, work: str, outcome: str | None) -> None:
        """The reaper took work away from a silent worker; `outcome` is the row's new status."""
        self.leases_expired.labels(work).inc()
        if outcome != "cancelled":
            self.attempts_lost.labels(work, "silence").inc()

    def short_ended(self, work: str, status: str, code: str) -> None:
        """A plan, or a model's or data set's inspection, has its outcome."""
        if work == "plan":
            self.plans_ended.labels(status, code).inc()
        else:
            self.inspections_ended.labels(work, status, code).inc()

    def attempt_ended(self, work: str, ending: str, seconds: float) -> None:
        self.attempt_seconds.labels(work, ending).observe(seconds)
        if ending == "lost":
            self.attempts_lost.labels(work, "child").inc()


class ProcessMetrics:
    """What a process holds at the moment; looked at when asked, and every few seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = _gauge(
            registry,
            "basisconv_database_connections",
            "Connections to the database: `in_use`, or `idle` in the pool.",
            "state",
        )
        self.connections_most = _gauge(
            registry, "basisconv_database_connections_most", "Connections that the pool may open."
        )
        self.resident_bytes = _gauge(
            registry,
            "basisconv_resident_bytes",
            "Memory held, in all of the web's processes, or in a worker without its child.",
        )


class Metrics:
    """What the web process counts, and what it shows."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.work = WorkMetrics(registry)
        self.process = ProcessMetrics(registry)
        self.shown: list[Callable[[], Iterable[Metric]]] = []  # looked up when the metrics are asked for
        self.requests = Counter(
            "basisconv_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "basisconv_http_request_seconds",
            "From the first byte of the request to the last of the answer, without event streams.",
            ["method", "route"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.requests_open = _gauge(
            registry,
            "basisconv_http_requests_in_progress",
            "Requests that are being answered, event streams among them.",
        )
        self.threads_busy = _gauge(
            registry, "basisconv_threads_busy", "Threads at work for requests; where all are, requests wait."
        )
        self.threads_most = _gauge(registry, "basisconv_threads_most", "Such threads at most.")
        self.upload_bytes = Counter(
            "basisconv_upload_bytes", "Bytes of accepted uploads.", ["kind"], registry=registry
        )
        self.rings_failed = Counter(
            "basisconv_rings_failed", "Messages that the broker did not take.", ["task"], registry=registry
        )
        for task in QUEUE_OF:
            self.rings_failed.labels(task)
        self.streams_opened = Counter(
            "basisconv_event_streams_opened", "Event streams opened.", registry=registry
        )
        self.streams_open = _gauge(registry, "basisconv_event_streams", "Event streams open now.")

    def text(self) -> bytes:
        """Everything in Prometheus' text format, each family once however many counted in it."""
        folder = shared_folder()
        own = self.registry.collect() if folder is None else _of_all_processes(folder)
        everything = CollectorRegistry(auto_describe=False)
        everything.register(_Merged([own, *(look() for look in self.shown)]))
        return generate_latest(everything)


def _of_all_processes(folder: Path) -> Iterable[Metric]:
    for pid in dead_processes(folder):
        with contextlib.suppress(FileNotFoundError):  # a sibling that is asked too was quicker
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    # A sibling that just starts has made its files but not written them: the library would stumble.
    files = [str(file) for file in folder.glob("*.db") if _size(file) > 0]
    found: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return found


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class _Merged(Collector):
    """Families of one name from several places as one: the format allows each only once."""

    def __init__(self, sources: list[Iterable[Metric]]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        merged: dict[str, Metric] = {}
        for source in self._sources:
            for family in source:
                empty = Metric(family.name, family.documentation, family.type)
                merged.setdefault(family.name, empty).samples.extend(family.samples)
        return merged.values()
