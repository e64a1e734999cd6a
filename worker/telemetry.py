"""What one worker counts, written to the board every few seconds, also while a task holds its main thread."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from threading import Event, Thread
from typing import Final

import pynvml
import structlog
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from app.core import vitals
from app.core.board import Board
from app.core.metrics import ProcessMetrics, WorkMetrics

EVERY_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class Telemetry:
    """Counters of this worker, and the thread that tells them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.work = WorkMetrics(self.registry)
        self._process = ProcessMetrics(self.registry)
        self._up = Gauge(
            "basisconv_worker_up",
            "1 from its start to its orderly stop; one that fell silent keeps its 1 and gets old.",
            ["queues"],
            registry=self.registry,
        )
        self._busy = Gauge("basisconv_worker_busy", "Whether it has a task.", registry=self.registry)
        self.registry.register(GpuCollector())
        self._stop = Event()
        self._thread: Thread | None = None

    def start(self, board: Board, worker: str, queues: str, engine: Engine) -> None:
        """Tell the board from now on."""
        self._up.labels(queues).set(1)

        def tell() -> None:
            vitals.look(self._process, engine)
            board.write(worker, generate_latest(self.registry))

        def run() -> None:
            stopped = False
            while not stopped:
                try:
                    tell()
                except Exception:  # figures must never cost work
                    log.exception("telemetry.failed")
                stopped = self._stop.wait(EVERY_SECONDS)
            self._up.labels(queues).set(0)
            tell()

        self._thread = Thread(target=run, name="telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell the last figures, so that a short-lived worker's count too."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(3)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        self._busy.set(1)
        try:
            yield
        finally:
            self._busy.set(0)


class GpuCollector(Collector):
    """Memory of the GPUs that this worker may use, asked of the driver; nothing where there is none.

    The worker itself never loads torch, and its child is too busy to be asked.
    """

    def __init__(self) -> None:
        self._present: bool | None = None

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        if self._present is None:
            self._present = _driver_answers()
        if not self._present:
            return
        used = GaugeMetricFamily("basisconv_gpu_memory_used_bytes", "Taken by anybody.", labels=["gpu"])
        total = GaugeMetricFamily("basisconv_gpu_memory_bytes", "There in all.", labels=["gpu"])
        for number in visible_gpus(pynvml.nvmlDeviceGetCount(), os.environ.get("CUDA_VISIBLE_DEVICES")):
            memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(number))
            used.add_metric([str(number)], memory.used)
            total.add_metric([str(number)], memory.total)
        yield from (used, total)


def _driver_answers() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("gpu.none", error=str(error))
        return False
    return True


def visible_gpus(count: int, visible: str | None) -> list[int]:
    """The driver's numbers of the GPUs that the variable leaves this process; it may also name them by UUID,
    which is not worth translating: then all are told."""
    if visible is None:
        return list(range(count))
    named = [part.strip() for part in visible.split(",") if part.strip()]
    if not all(part.isdecimal() for part in named):
        return list(range(count))
    return [int(part) for part in named if int(part) < count]
