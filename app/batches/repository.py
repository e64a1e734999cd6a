"""Queries over batches. What belongs to another owner does not exist."""

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.batches.tables import Batch
from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page
from app.jobs.states import ENDED
from app.jobs.tables import Job

_AT_ONCE = 200  # jobs with their results, in memory


def find(session: Session, owner_id: str, batch_id: str) -> Batch | None:
    if not is_id(batch_id, "batch"):
        return None
    return session.scalar(_owned(owner_id).where(Batch.id == batch_id))


def page_of(session: Session, owner_id: str, page: PageQuery) -> tuple[Sequence[Batch], bool]:
    return read_page(session, _owned(owner_id), Batch.id, "batch", page)


def counts(session: Session, ids: Collection[str]) -> dict[str, dict[str, int]]:
    """How many jobs of each batch are in each status: one look at an index for the whole page."""
    found: dict[str, dict[str, int]] = {batch_id: {} for batch_id in ids}
    grouped = (
        select(Job.batch_id, Job.status, func.count())
        .where(Job.batch_id.in_(ids))
        .group_by(Job.batch_id, Job.status)
    )
    for batch_id, status, number in session.execute(grouped):
        found[str(batch_id)][status] = number
    return found


def ended_jobs(sessions: sessionmaker[Session], batch_id: str) -> Iterator[Job]:
    """The batch's ended jobs in the order of its lines, few in memory and no transaction open between."""
    after = ""
    while True:
        with sessions() as session:
            ended = (
                select(Job)
                .where(Job.batch_id == batch_id, Job.id > after, Job.status.in_(ENDED))
                .order_by(Job.id)
                .limit(_AT_ONCE)
            )
            page = session.scalars(ended).all()
        yield from page
        if len(page) < _AT_ONCE:
            return
        after = page[-1].id


def _owned(owner_id: str) -> Select[Batch]:
    return select(Batch).where(Batch.owner_id == owner_id)
