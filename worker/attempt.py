"""What every attempt at leased work needs: heartbeat, child, and writes that outlive hiccups."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import structlog
from sqlalchemy.orm import Session

from app.core.db import AWAY
from app.core.errors import Internal, OutOfMemory, Problem, ResourceLimit, TimeLimit, WorkerLost
from app.core.metrics import NO_CODE
from app.jobs import leases
from app.jobs.tables import Job
from worker import sandbox, scratch
from worker.heartbeat import Heartbeat
from worker.messages import SandboxMessage
from worker.process import Child
from worker.quota import Quota
from worker.runtime import Runtime
from worker.sandbox import Policy
from worker.supervisor import Ending, Reporter, Watch, supervise

T = TypeVar("T")
CLAIM_SECONDS: Final = 10.0  # a database that just restarts costs no message
RETRY_SECONDS: Final = 0.5
CHILDS_SHARE: Final = 0.6  # of the grace at a stop; most of the rest is for carrying its checkpoint
LATE_SHARE: Final = 0.2
ENDS_SHARE: Final = 0.1  # and this for writing how the attempt ended

log = structlog.get_logger(__name__)


def say_started(runtime: Runtime, work: str, row: Any) -> None:
    """In the log and, how long the row waited for its first attempt, in the figures."""
    waited = (runtime.clock.now() - row.created_at).total_seconds()
    log.info("attempt.started", **{f"{work}_id": row.id}, attempt=row.attempt, since_created=round(waited, 3))
    if row.attempt == 1:
        runtime.telemetry.work.wait_seconds.labels(work).observe(max(waited, 0.0))


def code_of(ending: Ending) -> str:
    """Why an attempt brought no result, as a problem's code; empty where it did, or will be tried again."""
    if ending.kind == "problem":
        return str((ending.document or {}).get("code", Internal.code))
    return WorkerLost.code if ending.kind == "lost" else NO_CODE


@contextmanager
def beating(
    runtime: Runtime, table: leases.Short | type[Job], resource_id: str, lease: leases.Lease
) -> Iterator[Heartbeat]:
    """Keep the lease for as long as the block lasts."""

    def renew() -> str | None:
        with runtime.sessions.begin() as session:
            return leases.renew(session, table, resource_id, lease, runtime.clock.now())

    def look() -> str | None:
        with runtime.sessions() as session:
            return leases.status_of(session, table, resource_id, lease.owner)

    with Heartbeat(renew, look, runtime.settings.heartbeat_seconds) as heartbeat:
        yield heartbeat


def persistently(work: Callable[[], T], is_over: Callable[[], bool]) -> T:
    """Do something with the database, again and again while it is away, until `is_over` says to give up."""
    while True:
        try:
            return work()
        except AWAY as error:
            if is_over():
                raise
            log.warning("database.retry", error=type(error).__name__)
            time.sleep(RETRY_SECONDS)


def in_transaction(
    runtime: Runtime, work: Callable[[Session], T], is_over: Callable[[], bool] | None = None
) -> T:
    """Run `work` in one transaction, tried again while the database is away."""
    end = time.monotonic() + CLAIM_SECONDS

    def once() -> T:
        with runtime.sessions.begin() as session:
            return work(session)

    return persistently(once, is_over or (lambda: time.monotonic() > end))


class Halted(BaseException):
    """The attempt must not go on, before its child was there to be told. Nothing may take it for an error."""

    def __init__(self, kind: Literal["stopped", "cancelled", "lease_lost"]) -> None:
        super().__init__(kind)
        self.ending = Ending(kind)


def halting(runtime: Runtime, heartbeat: Heartbeat, grace_seconds: float = 0.0) -> Callable[[], None]:
    """To be called in the course of transfers, which may take longer than a worker that is to stop has.

    `grace_seconds`: what it may still take once the worker is to stop.
    """
    asked: float | None = None

    def look() -> None:
        nonlocal asked
        if heartbeat.lost.is_set():
            raise Halted("lease_lost")
        if heartbeat.status == "cancelling":
            raise Halted("cancelled")
        if runtime.stopping.is_set():
            asked = time.monotonic() if asked is None else asked
            if time.monotonic() - asked >= grace_seconds:
                raise Halted("stopped")

    return look


def storing(runtime: Runtime, heartbeat: Heartbeat) -> Callable[[], None]:
    """The same while results go into the store: nearly done, they get the child's share of the grace, or what
    a child leaves of it that was asked to stop itself. If that is not enough, the work is handed back."""
    share = LATE_SHARE if runtime.stopping.is_set() else CHILDS_SHARE
    return halting(runtime, heartbeat, share * runtime.settings.grace_seconds)


def until_stopped(runtime: Runtime) -> Callable[[], bool]:
    """For what must be written: says to give up only when the worker is to stop, and that soon.

    A worker without its database can do nothing better than wait: its result would be worked out again.
    """
    asked: float | None = None

    def is_over() -> bool:
        nonlocal asked
        if asked is None and runtime.stopping.is_set():
            asked = time.monotonic()
        return asked is not None and time.monotonic() - asked > ENDS_SHARE * runtime.settings.grace_seconds

    return is_over


def run_child(
    runtime: Runtime,
    folder: Path,
    task: dict[str, Any],
    policy: Policy,
    heartbeat: Heartbeat,
    reporter: Reporter,
    seconds: float,
    disk_bytes: int,
) -> Ending:
    """Give the folder to the child, start it and watch it to its end."""
    quota = Quota(folder, disk_bytes, runtime.settings.disk_reserve_bytes)
    grace = CHILDS_SHARE * runtime.settings.grace_seconds
    watch = Watch(heartbeat, runtime.stopping, seconds, grace, quota, _say_sandbox)
    scratch.give(folder, policy.uid)
    environment = sandbox.environment(folder, runtime.threads, sandbox.outer_environment())
    with Child(runtime.command, folder, environment, policy, task) as child:
        return supervise(child, reporter, watch)


_SAID: set[str] = set()  # once per process: every child of one worker is told the same


def _say_sandbox(said: SandboxMessage) -> None:
    for what in said.missing:
        if what not in _SAID:
            _SAID.add(what)
            log.warning("sandbox.incomplete", missing=what, holds=said.holds)
    if not said.missing and not _SAID:
        _SAID.add("whole")
        log.info("sandbox.whole", holds=said.holds)


def output(folder: Path, name: object) -> Path:
    """A file that the (now dead) child left: plain, in its folder, and not a link to somebody else's."""
    text = str(name)
    path = folder / text
    if "/" in text or text.startswith(".") or path.is_symlink() or not path.is_file():
        raise Internal(f"The child named {text[:100]!r} as its output, which is no plain file.")
    if path.stat().st_nlink != 1:
        raise Internal(f"The child's output {text[:100]!r} is linked from elsewhere.")
    return path


def as_inspection_problem(document: dict[str, Any]) -> dict[str, Any]:
    """An upload that needs too much is rejected for that: it has no job that ran out of memory or time."""
    code = document.get("code")
    if code not in (OutOfMemory.code, TimeLimit.code):
        return document
    problem: Problem = ResourceLimit(
        str(document.get("detail", "")),
        hint="Send a smaller file, or have the server's limit of an inspection raised.",
        limit=document.get("limit"),
    )
    return problem.document()
