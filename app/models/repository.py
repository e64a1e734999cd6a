"""Queries over uploaded networks. What belongs to another owner does not exist."""

from collections.abc import Collection, Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.models.tables import Model


def find(session: Session, owner_id: str, model_id: str) -> Model | None:
    if not is_id(model_id, "model"):
        return None
    return session.scalar(_owned(owner_id).where(Model.id == model_id))


def find_to_use(session: Session, owner_id: str, model_id: str) -> Model | None:
    """The model, kept from being deleted until the transaction ends."""
    if not is_id(model_id, "model"):
        return None
    found = _owned(owner_id).where(Model.id == model_id)
    return session.scalar(found.with_for_update(read=True, key_share=True))


def find_many_to_use(session: Session, owner_id: str, ids: Collection[str]) -> Sequence[Model]:
    """Those of these that there are, kept from being deleted until the transaction ends."""
    found = _owned(owner_id).where(Model.id.in_(ids)).order_by(Model.id)
    return session.scalars(found.with_for_update(read=True, key_share=True)).all()


def find_to_delete(session: Session, owner_id: str, model_id: str) -> Model | None:
    if not is_id(model_id, "model"):
        return None
    return session.scalar(_owned(owner_id).where(Model.id == model_id).with_for_update())


def page_of(
    session: Session,
    owner_id: str,
    page: PageQuery,
    status: str | None = None,
    sha256: str | None = None,
) -> tuple[Sequence[Model], bool]:
    statement = _owned(owner_id)
    if status is not None:
        statement = statement.where(Model.status == status)
    if sha256 is not None:
        statement = statement.where(Model.sha256 == sha256)
    return read_page(session, statement, Model.id, "model", page)


def _owned(owner_id: str) -> Select[Model]:
    return select(Model).where(Model.owner_id == owner_id)
