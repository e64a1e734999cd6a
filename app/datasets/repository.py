"""Queries over uploaded data sets. What belongs to another owner does not exist."""

from collections.abc import Collection, Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.datasets.tables import Dataset


def find(session: Session, owner_id: str, dataset_id: str) -> Dataset | None:
    if not is_id(dataset_id, "dataset"):
        return None
    return session.scalar(_owned(owner_id).where(Dataset.id == dataset_id))


def find_to_use(session: Session, owner_id: str, dataset_id: str) -> Dataset | None:
    """The data set, kept from being deleted until the transaction ends."""
    if not is_id(dataset_id, "dataset"):
        return None
    found = _owned(owner_id).where(Dataset.id == dataset_id)
    return session.scalar(found.with_for_update(read=True, key_share=True))


def find_many_to_use(session: Session, owner_id: str, ids: Collection[str]) -> Sequence[Dataset]:
    """Those of these that there are, kept from being deleted until the transaction ends."""
    found = _owned(owner_id).where(Dataset.id.in_(ids)).order_by(Dataset.id)
    return session.scalars(found.with_for_update(read=True, key_share=True)).all()


def find_to_delete(session: Session, owner_id: str, dataset_id: str) -> Dataset | None:
    if not is_id(dataset_id, "dataset"):
        return None
    return session.scalar(_owned(owner_id).where(Dataset.id == dataset_id).with_for_update())


def page_of(
    session: Session,
    owner_id: str,
    page: PageQuery,
    status: str | None = None,
    sha256: str | None = None,
) -> tuple[Sequence[Dataset], bool]:
    statement = _owned(owner_id)
    if status is not None:
        statement = statement.where(Dataset.status == status)
    if sha256 is not None:
        statement = statement.where(Dataset.sha256 == sha256)
    return read_page(session, statement, Dataset.id, "dataset", page)


def _owned(owner_id: str) -> Select[Dataset]:
    return select(Dataset).where(Dataset.owner_id == owner_id)
