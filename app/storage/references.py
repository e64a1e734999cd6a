"""Which rows need which object. Equal files share one object, so it goes with the last row naming it.

An upload of the same bytes may come while the last row is being deleted. Both sides therefore hold the same
advisory lock, keyed by the hash, from looking to committing.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final

import structlog
from sqlalchemy import func, select, union
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker

from app.artifacts.tables import Artifact
from app.core.patience import LOCK_SECONDS, patience
from app.datasets.tables import Dataset
from app.models.tables import Model
from app.plans.tables import Measurement
from app.storage.store import Store

# Every column whose hash is an object's address. What is missing here would be swept: a test looks for it.
OBJECTS: Final[tuple[InstrumentedAttribute[Any], ...]] = (
    Model.sha256,
    Model.canonical_sha256,
    Dataset.sha256,
    Dataset.canonical_sha256,
    Artifact.sha256,
    Measurement.sha256,
)

log = structlog.get_logger()


def lock_object(session: Session, sha256: str) -> None:
    """Hold this object until the transaction ends: taken before object and row appear."""
    with patience(LOCK_SECONDS):
        session.execute(select(func.pg_advisory_xact_lock(int(sha256[:15], 16))))  # 60 bits fit a bigint


def referenced(session: Session, hashes: Collection[str]) -> set[str]:
    """Those of these hashes that any row names."""
    named: list[Any] = [select(column).where(column.in_(hashes)) for column in OBJECTS]
    return set(session.scalars(union(*named)))


def release_objects(sessions: sessionmaker[Session], store: Store, hashes: Iterable[str | None]) -> None:
    """Delete those objects that no row names any more. Called after the rows' deletion was committed."""
    for sha256 in sorted({sha256 for sha256 in hashes if sha256 is not None}):
        with sessions.begin() as session:
            lock_object(session, sha256)
            if not referenced(session, {sha256}):
                store.delete(sha256)
                log.info("object.deleted", sha256=sha256)
