"""Keeping children alive: a child that ended is started again, later each time, and at last not at all."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.embedded.children import Server, tail

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)  # after so many failures in a row the whole run ends
STEADY_SECONDS = 60.0  # a child that lived this long starts with a clean record


class GaveUp(Exception):  # noqa: N818 - says what is wrong
    """A child ended again and again."""


@dataclass
class _Watched:
    server: Server
    failures: int = 0
    started: float = 0.0
    again_at: float | None = None  # set while it waits for its next start


@dataclass
class Supervisor:
    """Looks at its children whenever `look` is called; the clock enters as an argument."""

    servers: Sequence[Server]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _watched: list[_Watched] = field(init=False)

    def __post_init__(self) -> None:
        now = self.clock()
        self._watched = [_Watched(server, started=now) for server in self.servers]

    def look(self) -> None:
        """Start what ended and has waited long enough; GaveUp when that has failed too often."""
        for watched in self._watched:
            if watched.again_at is not None:
                self._maybe_start(watched)
            elif watched.server.process is not None and watched.server.process.poll() is not None:
                self._note_end(watched, watched.server.process.returncode)

    def _note_end(self, watched: _Watched, status: int) -> None:
        server, now = watched.server, self.clock()
        if now - watched.started > STEADY_SECONDS:
            watched.failures = 0
        if watched.failures == len(BACKOFF_SECONDS):
            raise GaveUp(
                f"{server.name} ended {watched.failures + 1} times in a row, last {_ending(status)}. "
                f"The end of {server.log}:\n{tail(server.log, 15)}"
            )
        wait = BACKOFF_SECONDS[watched.failures]
        watched.failures += 1
        watched.again_at = now + wait
        self.say(f"{server.name} ended ({_ending(status)}); starting it again in {wait:g} s")

    def _maybe_start(self, watched: _Watched) -> None:
        if watched.again_at is None or self.clock() < watched.again_at:
            return
        watched.again_at, watched.started = None, self.clock()
        watched.server.start()
        self.say(f"{watched.server.name} started again")


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
