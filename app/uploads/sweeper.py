"""Deletes uploads whose time is over, and pieces that belong to no upload any more.

Runs in a thread of the web process; of several web processes only one sweeps at a time.
"""

from datetime import datetime, timedelta
from threading import Event
from typing import Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.settings import Settings
from app.storage.store import Store
from app.uploads import repository

ADVISORY_LOCK: Final = 0x55706C6F  # "Uplo": any constant that nothing else in this database uses
AT_ONCE: Final = 200
STRAYS_EVERY: Final = timedelta(hours=1)  # looking for them lists a folder of the store

log = structlog.get_logger(__name__)


class Sweeper:
    def __init__(
        self, sessions: sessionmaker[Session], store: Store, clock: Clock, settings: Settings
    ) -> None:
        self._sessions, self._store = sessions, store
        self._clock, self._settings = clock, settings
        self._strays_at: datetime | None = None

    def run(self, stop: Event) -> None:
        """Sweep every `reaper_seconds` until `stop`; a server that is away costs a round."""
        while not stop.is_set():
            try:
                self.sweep()
            except SQLAlchemyError as error:
                log.warning("sweeper.round_lost", error=type(error).__name__)
            except Exception:  # this thread must outlive whatever a round can meet
                log.exception("sweeper.round_failed")
            stop.wait(self._settings.reaper_seconds)

    def sweep(self) -> None:
        """One round; nothing when another process holds the lock."""
        with self._sessions.begin() as guard:
            if not guard.scalar(select(func.pg_try_advisory_xact_lock(ADVISORY_LOCK))):
                return
            now = self._clock.now()
            self._delete_expired(now)
            if self._strays_at is None or now >= self._strays_at + STRAYS_EVERY:
                self._strays_at = now
                self._delete_strays()

    def _delete_expired(self, now: datetime) -> None:
        with self._sessions.begin() as session:
            expired = repository.remove_expired(session, now, AT_ONCE)
        for upload_id in expired:
            self._store.pieces.delete(upload_id)
            log.info("sweeper.upload_expired", upload=upload_id)

    def _delete_strays(self) -> None:
        """What a process left that was killed between a row and its pieces; rows come first and go first."""
        lying = self._store.pieces.uploads()
        with self._sessions() as session:
            strays = repository.without_row(session, lying)
        for upload_id in strays:
            self._store.pieces.delete(upload_id)
        if strays:
            log.info("sweeper.strays_deleted", uploads=len(strays))
