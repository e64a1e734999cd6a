"""A lease kept alive in a thread, so that no slow download, hash or write lets it run out."""

import time
from collections.abc import Callable
from contextvars import copy_context
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.core.patience import patience

POLL_SECONDS: Final = 0.5  # how often the row is looked at: a cancel is seen within this time
LEAST_PATIENCE_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


class Heartbeat:
    """Renews every `heartbeat_seconds` and looks at the row in between.

    `renew` and `look` give the row's status, or None when the lease is somebody else's: only the database can
    say so. One that is away is asked again for as long as it takes, for nobody else can have claimed the row
    through it; should somebody have, from where it can be reached, what we write later changes nothing.
    """

    def __init__(
        self,
        renew: Callable[[], str | None],
        look: Callable[[], str | None],
        heartbeat_seconds: float,
    ) -> None:
        self._renew = renew
        self._look = look
        self._every = heartbeat_seconds
        self._stop = Event()
        self.began = self._renewed = time.monotonic()
        # With the ids that this task's log lines carry: a thread begins without them.
        self._thread = Thread(target=copy_context().run, args=(self._run,), name="heartbeat", daemon=True)
        self.status: str | None = None  # as last seen
        self.lost = Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def seconds(self) -> float:
        """Since it began to beat."""
        return time.monotonic() - self.began

    def _run(self) -> None:
        while not self._stop.wait(min(POLL_SECONDS, self._every)) and not self.lost.is_set():
            try:
                self._beat()
            except SQLAlchemyError as error:
                log.warning("heartbeat.missed", error=type(error).__name__)

    def _beat(self) -> None:
        began = time.monotonic()
        due = began - self._renewed >= self._every
        with patience(max(self._every, LEAST_PATIENCE_SECONDS)):  # the next beat finds another connection
            self.status = self._renew() if due else self._look()
        if self.status is None:
            self.lost.set()
        elif due:
            self._renewed = began
