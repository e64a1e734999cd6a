"""Queries over plans and measurements. What belongs to another owner does not exist."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.plans.tables import Measurement, Plan
from app.storage.store import Blob


def find(session: Session, owner_id: str, plan_id: str) -> Plan | None:
    if not is_id(plan_id, "plan"):
        return None
    return session.scalar(_owned(owner_id).where(Plan.id == plan_id))


def find_to_delete(session: Session, owner_id: str, plan_id: str) -> Plan | None:
    if not is_id(plan_id, "plan"):
        return None
    return session.scalar(_owned(owner_id).where(Plan.id == plan_id).with_for_update())


def page_of(
    session: Session, owner_id: str, page: PageQuery, status: str | None = None, model: str | None = None
) -> tuple[Sequence[Plan], bool]:
    statement = _owned(owner_id)
    if status is not None:
        statement = statement.where(Plan.status == status)
    if model is not None:
        statement = statement.where(Plan.model_id == model)
    return read_page(session, statement, Plan.id, "plan", page)


def measurement(session: Session, model_id: str, key: str) -> Measurement | None:
    return session.get(Measurement, (model_id, key))


def keep_measurement(
    session: Session, model_id: str, key: str, dataset_id: str | None, blob: Blob, now: datetime
) -> None:
    """Remember a measurement; of two made at once the first stays."""
    row = insert(Measurement).values(
        model_id=model_id,
        key=key,
        dataset_id=dataset_id,
        sha256=blob.sha256,
        bytes=blob.bytes,
        created_at=now,
    )
    session.execute(row.on_conflict_do_nothing())


def measured_objects(
    session: Session, *, model_id: str | None = None, dataset_id: str | None = None
) -> Sequence[str]:
    """Objects of the measurements that go with a model or a data set."""
    whose = Measurement.model_id == model_id if model_id is not None else Measurement.dataset_id == dataset_id
    return session.scalars(select(Measurement.sha256).where(whose)).all()


def _owned(owner_id: str) -> Select[Plan]:
    return select(Plan).where(Plan.owner_id == owner_id)
