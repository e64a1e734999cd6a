"""What a worker's own disk no longer needs: scratch of killed workers, copies of data sets that were deleted.

A thread beside the tasks, for the pool is busy for hours at a time. It starts no process: a child's
parent-death signal hangs on the thread that started it.
"""

from threading import Event, Thread

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.storage.references import referenced
from worker.cache import DiskCache
from worker.runtime import Runtime
from worker.scratch import sweep

log = structlog.get_logger(__name__)


def start(runtime: Runtime) -> Thread:
    """Tidy up now and every `sweep_seconds` until the worker stops."""
    thread = Thread(target=_run, args=(runtime, runtime.stopping), name="housekeeping", daemon=True)
    thread.start()
    return thread


def _run(runtime: Runtime, stopping: Event) -> None:
    while not stopping.is_set():
        try:
            tidy(runtime)
        except (SQLAlchemyError, OSError) as error:
            log.warning("housekeeping.round_lost", error=type(error).__name__)
        stopping.wait(runtime.settings.sweep_seconds)


def tidy(runtime: Runtime) -> None:
    """One round. A file in use stays with whoever uses it: they hold a link of their own."""
    sweep(runtime.scratch_root)
    cache = DiskCache(runtime.cache_root, runtime.settings.cache_bytes)
    cached = cache.hashes()
    with runtime.sessions() as session:
        alive = referenced(session, cached)
    cache.drop(cached - alive)
