"""What a worker process is made of; built once and handed to every task."""

import os
import secrets
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event

import psutil
import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock, SystemClock
from app.core.db import make_engine, make_sessions
from app.core.events import BusPublisher
from app.core.queue import CeleryDoorbell, Doorbell
from app.core.settings import Settings
from app.jobs.leases import Lease, Retries
from app.jobs.reaper import Waker
from app.storage.store import Store, open_store
from worker.sandbox import other_uid
from worker.scratch import make_root
from worker.telemetry import Telemetry

CHILD = (sys.executable, "-P", "-m", "worker.child")  # -P: nothing is imported from the scratch folder

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Runtime:
    settings: Settings
    sessions: sessionmaker[Session]
    store: Store
    doorbell: Doorbell
    waker: Waker
    clock: Clock
    stopping: Event
    command: tuple[str, ...] = CHILD
    telemetry: Telemetry = field(default_factory=Telemetry)

    @classmethod
    def build(cls, settings: Settings, stopping: Event) -> "Runtime":
        broker_url = settings.broker_url.get_secret_value()
        engine = make_engine(
            settings.database_url.get_secret_value(),
            pool_size=2,
            # Whoever must stop within the grace can't wait for longer than that.
            answer_seconds=min(settings.database_seconds, settings.grace_seconds / 2),
        )
        return cls(
            settings=settings,
            sessions=make_sessions(engine),
            store=open_store(settings.objects_url()),
            doorbell=CeleryDoorbell(broker_url),
            waker=BusPublisher(broker_url),
            clock=SystemClock(),
            stopping=stopping,
        )

    @property
    def engine(self) -> Engine:
        engine: Engine = self.sessions.kw["bind"]
        return engine

    @property
    def retries(self) -> Retries:
        return Retries(self.settings.max_attempts, self.settings.retry_seconds)

    @property
    def threads(self) -> int:
        return self.settings.torch_threads or len(os.sched_getaffinity(0))

    @cached_property
    def memory_bytes(self) -> int:
        """What this machine, or the container we are in, has."""
        limits = [psutil.virtual_memory().total]
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
        return min(limits)

    @property
    def readable(self) -> tuple[str, ...]:
        """Folders that children may read beside the interpreter's."""
        return tuple(filter(None, self.settings.sandbox_readable.split(":")))

    @property
    def scratch_root(self) -> Path:
        return self.settings.var_dir.resolve() / "scratch"

    @property
    def cache_root(self) -> Path:
        return self.settings.var_dir.resolve() / "cache"

    @cached_property
    def uid(self) -> int | None:
        """The uid of this worker's children; None where they run as the worker does, which is said once."""
        make_root(self.scratch_root)
        uid, reason = other_uid(self.scratch_root, os.getpid())
        if reason is not None and os.geteuid() == 0:
            log.warning("sandbox.same_uid", reason=reason, hint="install outside /root, or run as a user")
        return uid

    def new_lease(self) -> Lease:
        """A token that no other claim has or will have."""
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(6)}"
        return Lease(owner, self.settings.lease_seconds)
