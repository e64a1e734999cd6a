"""What a process holds at the moment, put into its gauges."""

import psutil
from sqlalchemy import Engine, QueuePool

from app.core.metrics import ProcessMetrics


def look(metrics: ProcessMetrics, engine: Engine) -> None:
    """Connections and memory. Takes microseconds, so it may be called from anywhere."""
    pool = engine.pool
    if isinstance(pool, QueuePool):
        metrics.connections.labels("in_use").set(pool.checkedout())
        metrics.connections.labels("idle").set(pool.checkedin())
        metrics.connections_most.set(pool.size() + pool._max_overflow)  # noqa: SLF001 - it is said nowhere else
    metrics.resident_bytes.set(psutil.Process().memory_info().rss)
