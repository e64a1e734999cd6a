"""Work that comes round in every web process, and that one of them does at a time.

A subclass names itself and a lock and says what a round does; the web process gives each its thread:

    class Sender(Rounds):
        name = "sender"
        lock = 0x53656E64  # "Send"

        def _round(self, now: datetime) -> None: ...
"""

from abc import ABC, abstractmethod
from datetime import datetime
from threading import Event
from typing import ClassVar

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock

log = structlog.get_logger(__name__)


class Rounds(ABC):
    name: ClassVar[str]  # of its thread, and of what the log says of a round
    lock: ClassVar[int]  # any constant that nothing else in this database uses; the same in every release

    def __init__(self, sessions: sessionmaker[Session], clock: Clock, seconds: float) -> None:
        self._sessions, self._clock, self._seconds = sessions, clock, seconds

    def run(self, stop: Event) -> None:
        """A round every so many seconds until `stop`; servers that are away cost a round."""
        while not stop.is_set():
            try:
                self.sweep()
            except SQLAlchemyError as error:
                log.warning("round.lost", part=self.name, error=type(error).__name__)
            except Exception:  # this thread must outlive whatever a round can meet
                log.exception("round.failed", part=self.name)
            stop.wait(self._seconds)

    def sweep(self) -> None:
        """One round; nothing when another process is at it."""
        with self._sessions.begin() as guard:
            if guard.scalar(select(func.pg_try_advisory_xact_lock(self.lock))):
                self._round(self._clock.now())

    @abstractmethod
    def _round(self, now: datetime) -> None:
        """What is done. It commits in sessions of its own: the guard's only holds the lock."""
