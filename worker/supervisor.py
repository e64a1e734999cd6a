"""Watches one child until it has a result or must not go on, and says which."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any, Final, Literal, Protocol

import structlog

from app.core.errors import OutOfMemory, Problem, TimeLimit, problem_from
from worker.heartbeat import Heartbeat
from worker.messages import (
    LogMessage,
    NotAMessage,
    ProblemMessage,
    ResultMessage,
    Said,
    SandboxMessage,
    parse,
)
from worker.process import Child, TooMuchSaid
from worker.quota import Quota

TICK_SECONDS: Final = 0.2
MOST_LINES: Final = 1_000  # of one child in the worker's log
ASKED_SECONDS: Final = 1.0  # between a machine's SIGTERM to the child and that to us
EXIT_SECONDS: Final = 10.0  # from the last line to the end of the process

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ending:
    """How a child's work ended, before the database hears of it."""

    kind: Literal["result", "problem", "lost", "cancelled", "stopped", "lease_lost"]
    document: dict[str, Any] | None = None  # the result, or the problem
    reason: str = ""  # of a lost child
    crashed: bool = False  # of a lost child: by its own doing, so that it would end so again
    stderr: str = ""  # the end of what it wrote there


class Reporter(Protocol):
    """Takes what a child says on its way to the database."""

    def take(self, said: Said) -> None: ...

    def flush(self) -> None:
        """Write what is due; never raises for a database that is away."""
        ...


@dataclass(frozen=True)
class Watch:
    """What the supervisor looks at while a child works."""

    heartbeat: Heartbeat
    stopping: Event
    seconds: float  # the time limit
    grace_seconds: float
    quota: Quota
    on_sandbox: Callable[[SandboxMessage], None]


def supervise(child: Child, reporter: Reporter, watch: Watch) -> Ending:
    """Read the child to its end, or end it. The child is dead when this returns."""
    deadline = time.monotonic() + watch.seconds
    try:
        while True:
            ending = _listen(child, reporter, watch) or _must_end(child, reporter, watch, deadline)
            reporter.flush()
            if ending is not None:
                return ending
    except (NotAMessage, TooMuchSaid) as error:
        log.warning("child.talks_nonsense", error=str(error)[:500])
        return Ending("lost", reason="its process wrote something that is no message")
    finally:
        child.kill()


def _listen(child: Child, reporter: Reporter, watch: Watch) -> Ending | None:
    was_over = child.has_exited  # asked first: what it said before it went is in the pipe by now
    for line in child.lines(TICK_SECONDS):
        said = parse(line)
        if isinstance(said, ResultMessage):
            child.wait(EXIT_SECONDS)
            return Ending("result", said.result)
        if isinstance(said, ProblemMessage):
            return _failed(child, problem_from(said.problem))
        if isinstance(said, SandboxMessage):
            watch.on_sandbox(said)
        elif isinstance(said, LogMessage):
            _pass_on(child, said)
        else:
            reporter.take(said)
    # The pipe of a child that is gone stays open when something that it started still holds it.
    return _lost(child, watch) if child.closed or (was_over and not child.spoke) else None


def _pass_on(child: Child, said: LogMessage) -> None:
    """A child's line, in the log with the ids of its task. Only so many: a stranger's file may be talking."""
    child.logged += 1
    if child.logged > MOST_LINES:
        return
    logger: Any = log.bind(child_pid=child.process.pid)
    getattr(logger, said.level)(
        "child.said", said=_printable(said.event), by=_printable(said.logger), fields=said.fields
    )
    if child.logged == MOST_LINES:
        logger.warning("child.said_too_much", lines=MOST_LINES)


def _failed(child: Child, problem: Problem) -> Ending:
    """A refusal says all there is to say; an error of ours is for the log, with the traceback it printed."""
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        child.wait(EXIT_SECONDS)
        child.listen_to_the_end()
        log.error("child.failed", code=problem.code, detail=problem.detail, stderr=_tail(child))
    return Ending("problem", problem.document())


def _tail(child: Child) -> str:
    return _printable(child.stderr_tail.decode("utf-8", "replace"))


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor or begin a line that looks like one of ours."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _lost(child: Child, watch: Watch) -> Ending:
    """The pipe ended without a last word. A child that closed it and lives on has left the protocol too."""
    child.wait(EXIT_SECONDS)
    if child.was_asked_to_stop() and watch.stopping.wait(ASKED_SECONDS):
        return Ending("stopped")
    child.kill()
    if child.ran_out_of_memory():
        return Ending("problem", out_of_memory(child.ending()).document())
    if child.ran_out_of_time:
        return Ending("problem", _time_limit(watch.seconds).document())
    tail = _tail(child)
    log.warning("child.lost", ending=child.ending(), stderr=tail)
    return Ending("lost", reason=child.ending(), crashed=child.crashed, stderr=tail)


def _must_end(child: Child, reporter: Reporter, watch: Watch, deadline: float) -> Ending | None:
    if watch.heartbeat.lost.is_set():
        return Ending("lease_lost")
    if watch.heartbeat.status == "cancelling":
        return Ending("cancelled")
    if time.monotonic() > deadline:
        return Ending("problem", _time_limit(watch.seconds).document())
    if watch.stopping.is_set():
        return _stop(child, reporter, watch)
    breach = watch.quota.breach()
    return None if breach is None else Ending("problem", breach.document())


def _stop(child: Child, reporter: Reporter, watch: Watch) -> Ending:
    """The worker stops: ask the child, and take a result that comes within the grace all the same."""
    child.ask_to_stop()
    end = time.monotonic() + watch.grace_seconds
    while time.monotonic() < end and not watch.heartbeat.lost.is_set():
        ending = _listen_stopping(child, reporter, watch)
        if ending is not None:
            return ending
    return Ending("stopped")


def _listen_stopping(child: Child, reporter: Reporter, watch: Watch) -> Ending | None:
    was_over = child.has_exited  # asked first, as in _listen: its last checkpoint may be in the pipe
    for line in child.lines(TICK_SECONDS):
        said = parse(line)
        if isinstance(said, ResultMessage):
            return Ending("result", said.result)
        if isinstance(said, LogMessage):
            _pass_on(child, said)
        elif not isinstance(said, (ProblemMessage, SandboxMessage)):
            reporter.take(said)
    if watch.heartbeat.status == "cancelling":
        return Ending("cancelled")
    return Ending("stopped") if child.closed or (was_over and not child.spoke) else None


def _time_limit(seconds: float) -> Problem:
    return TimeLimit(
        f"The work took longer than {seconds:,.0f} s, which is the limit of this server.",
        hint="Ask for fewer epochs or less data, or have the limit raised.",
        limit=seconds,
    )


def out_of_memory(what: str) -> Problem:
    return OutOfMemory(
        f"The work needed more memory than there is: {what}.",
        hint="A smaller batch_size, smaller images or fewer of them need less.",
    )
