"""Deletes uploads whose time is over, and pieces that belong to no upload any more."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.rounds import Rounds
from app.core.settings import Settings
from app.storage.store import Store
from app.uploads import repository

AT_ONCE: Final = 200
STRAYS_EVERY: Final = timedelta(hours=1)  # looking for them lists a folder of the store

log = structlog.get_logger(__name__)


class Sweeper(Rounds):
    name = "sweeper"
    lock = 0x55706C6F  # "Uplo"

    def __init__(
        self, sessions: sessionmaker[Session], store: Store, clock: Clock, settings: Settings
    ) -> None:
        super().__init__(sessions, clock, settings.reaper_seconds)
        self._store = store
        self._strays_at: datetime | None = None

    def _round(self, now: datetime) -> None:
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
