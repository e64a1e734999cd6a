"""Deletes what nobody needs any more: jobs past their time, objects without rows, uploads that never came.

Every deletion is decided under a lock or by age, so that a sweep at the wrong moment, or two at once, take
nothing that is in use.
"""

from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from app.batches.retention import expire_batches
from app.core import idempotency
from app.core.clock import Clock
from app.core.patience import UPKEEP_SECONDS, patience
from app.core.rounds import Rounds
from app.core.settings import Settings
from app.jobs import checkpoints, turns
from app.jobs.retention import expire_jobs
from app.keys.tables import IdempotencyRecord, Reservation
from app.plans.retention import expire_plans
from app.storage.references import lock_object, referenced
from app.storage.store import Store, Stored
from app.webhooks import repository as webhooks

STALE_UPLOAD: Final = timedelta(days=1)  # longer than any upload takes
# Objects are stored before their row: one that is younger may be about to get its own. The lock of an object
# decides; this only spares work.
ORPHAN_AGE: Final = timedelta(hours=1)
OLD_TURN: Final = timedelta(days=1)
OLD_MESSAGE: Final = timedelta(days=30)

log = structlog.get_logger(__name__)


class Janitor(Rounds):
    name = "janitor"
    lock = 0x4A616E69  # "Jani"

    def __init__(
        self, sessions: sessionmaker[Session], store: Store, clock: Clock, settings: Settings
    ) -> None:
        super().__init__(sessions, clock, settings.sweep_seconds)
        self._store = store
        self._settings = settings

    def sweep(self) -> None:
        with patience(UPKEEP_SECONDS):
            super().sweep()

    def _round(self, now: datetime) -> None:
        jobs = plans = batches = 0
        if self._settings.retention_days:
            kept = timedelta(days=self._settings.retention_days)
            jobs = expire_jobs(self._sessions, self._store, now - kept)
            plans = expire_plans(self._sessions, now - kept)
            batches = expire_batches(self._sessions, now - kept)
        uploads = self._store.clear_staging(now - STALE_UPLOAD)
        objects, size = sweep_orphans(self._sessions, self._store, now - ORPHAN_AGE)
        keep = timedelta(hours=self._settings.keep_lost_hours)
        left = checkpoints.sweep(self._sessions, self._store, now, keep)
        self._forget(now)
        log.info(
            "janitor.swept",
            jobs=jobs,
            plans=plans,
            batches=batches,
            uploads=uploads,
            objects=objects,
            bytes=size,
            checkpoints=left,
        )

    def _forget(self, now: datetime) -> None:
        """Rows that have had their time."""
        with self._sessions.begin() as session:
            session.execute(
                delete(IdempotencyRecord).where(IdempotencyRecord.created_at < now - idempotency.KEPT)
            )
            session.execute(delete(Reservation).where(Reservation.expires_at < now))
            turns.forget(session, now - OLD_TURN)
            webhooks.forget(session, now - OLD_MESSAGE)


def sweep_orphans(sessions: sessionmaker[Session], store: Store, before: datetime) -> tuple[int, int]:
    """Delete objects written before this moment that no row names; how many, and their bytes.

    They are left behind by a process that is killed after it stored an object and before it wrote the row, or
    after it deleted the row and before the object.
    """
    count = size = 0
    for page in store.objects():
        old = {found.sha256: found for found in page if found.written_at < before}
        with sessions() as session:
            named = referenced(session, old.keys())
        for sha256 in old.keys() - named:
            if _delete_orphan(sessions, store, old[sha256], before):
                count, size = count + 1, size + old[sha256].bytes
    return count, size


def _delete_orphan(sessions: sessionmaker[Session], store: Store, found: Stored, before: datetime) -> bool:
    """Look again under the object's lock: the same bytes may have been uploaded since the first look."""
    with sessions.begin() as session:
        lock_object(session, found.sha256)
        written_at = store.written_at(found.sha256)
        if written_at is None or written_at >= before or referenced(session, {found.sha256}):
            return False
        store.delete(found.sha256)
    log.info("object.orphan_deleted", sha256=found.sha256, bytes=found.bytes)
    return True
