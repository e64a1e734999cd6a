"""What an owner uses, held against what the calling key may use. The database is the truth.

Who adds something takes the owner's lock first and holds it from counting to committing: of two requests at
once the second counts what the first has added. An object's lock (`lock_object`) comes after it.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Integer, cast, func, select, union, union_all
from sqlalchemy.orm import Session

from app.artifacts.tables import Artifact
from app.core.errors import QuotaExceeded
from app.core.security import Caller
from app.datasets.tables import Dataset
from app.jobs.states import ENDED, JobStatus
from app.jobs.tables import Job
from app.keys.tables import Reservation
from app.models.tables import Model
from app.plans.tables import Measurement, Plan
from app.uploads.tables import Resumable

_OWNERS: Final = 0x4F776E  # "Own": keeps these locks apart from those of objects
_ACTIVE: Final = tuple(status for status in JobStatus if status not in ENDED)
_RETRY_JOBS: Final = "30"  # seconds; a job ends every few minutes
_RETRY_BYTES: Final = "3600"  # nothing gets room but a deletion or the retention's next sweep


def lock_owner(session: Session, owner_id: str) -> None:
    """Let nobody else add anything of this owner's until the transaction ends."""
    number = func.hashtext(owner_id)
    session.execute(select(func.pg_advisory_xact_lock(cast(_OWNERS, Integer), number)))


def stored_bytes(session: Session, owner_id: str, now: datetime) -> int:
    """Bytes of the owner's objects, each once however many rows name it, and of uploads on their way: all
    that was announced of those that come in several requests."""
    objects = union(*_named(owner_id)).subquery()  # rows that name the same object become one
    kept = session.scalar(select(func.sum(objects.c.bytes)))
    return int(kept or 0) + _coming(session, owner_id, now)


def _at_most(session: Session, owner_id: str, now: datetime) -> int:
    """The same with every row counted: never less, and a fraction of the work for owners of many files."""
    rows = union_all(*_named(owner_id)).subquery()
    kept = session.scalar(select(func.sum(rows.c.bytes)))
    return int(kept or 0) + _coming(session, owner_id, now)


def _named(owner_id: str) -> list[Any]:
    """The objects that rows of this owner name, with their bytes."""
    columns: tuple[tuple[Any, Any, Any], ...] = (
        (Model, Model.sha256, Model.bytes),
        (Model, Model.canonical_sha256, Model.canonical_bytes),
        (Dataset, Dataset.sha256, Dataset.bytes),
        (Dataset, Dataset.canonical_sha256, Dataset.canonical_bytes),
        (Artifact, Artifact.sha256, Artifact.bytes),
    )
    own = [
        select(column, func.coalesce(size, 0).label("bytes")).where(table.owner_id == owner_id)
        for table, column, size in columns
    ]
    measured = select(Measurement.sha256, Measurement.bytes).join(Model, Model.id == Measurement.model_id)
    return [*own, measured.where(Model.owner_id == owner_id)]


def _coming(session: Session, owner_id: str, now: datetime) -> int:
    coming = select(func.sum(Reservation.bytes)).where(
        Reservation.owner_id == owner_id, Reservation.expires_at > now
    )
    resting = select(func.sum(Resumable.length)).where(
        Resumable.owner_id == owner_id, Resumable.expires_at > now
    )
    return int(session.scalar(coming) or 0) + int(session.scalar(resting) or 0)


def active_jobs(session: Session, owner_id: str) -> int:
    """Jobs and plans that wait or run: both keep a worker busy."""
    jobs = select(func.count()).where(Job.owner_id == owner_id, Job.status.in_(_ACTIVE))
    plans = select(func.count()).where(Plan.owner_id == owner_id, Plan.status == Plan.waiting)
    return (session.scalar(jobs) or 0) + (session.scalar(plans) or 0)


def require_bytes(session: Session, caller: Caller, more: int, now: datetime) -> None:
    """Raise QuotaExceeded unless so many bytes more fit; they do until the transaction ends."""
    limit = caller.limits.stored_bytes
    if not limit:
        return
    lock_owner(session, caller.owner_id)
    if _at_most(session, caller.owner_id, now) + more <= limit:
        return
    used = stored_bytes(session, caller.owner_id, now)
    if used + more > limit:
        raise no_room(used, more, limit)


def require_jobs(session: Session, caller: Caller, more: int, now: datetime) -> None:
    """Raise QuotaExceeded unless so many jobs more may wait or run, and there is room for what they make."""
    limit = caller.limits.active_jobs
    if limit:
        lock_owner(session, caller.owner_id)
        used = active_jobs(session, caller.owner_id)
        if used + more > limit:
            raise _too_many(used, more, limit)
    require_bytes(session, caller, 1, now)  # how large its files will be, nobody knows yet


def no_room(used: int, more: int | None, limit: int) -> QuotaExceeded:
    """`more` None: it is not known how much."""
    needs = "This upload needs more than is left" if more is None else f"This needs {more:,} bytes more"
    return QuotaExceeded(
        f"You store {used:,} of at most {limit:,} bytes. {needs}.",
        hint="Delete networks, data sets or jobs that you no longer need; GET /v1/usage shows what is used.",
        headers={"Retry-After": _RETRY_BYTES},
        quota="stored_bytes",
        limit=limit,
        used=used,
        needed=more,
    )


def _too_many(used: int, more: int, limit: int) -> QuotaExceeded:
    asked = "one more" if more == 1 else f"{more:,} more"
    return QuotaExceeded(
        f"{used:,} of your jobs and plans wait or run, and at most {limit:,} may; this asks for {asked}.",
        hint="Wait until some have ended, or cancel some.",
        headers={"Retry-After": _RETRY_JOBS},
        quota="active_jobs",
        limit=limit,
        used=used,
        needed=more,
    )
