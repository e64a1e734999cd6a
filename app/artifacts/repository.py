"""Queries over artifacts. What belongs to another owner does not exist."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.tables import Artifact
from app.core.ids import is_id
from app.core.pagination import PageQuery, read_page


def find(session: Session, owner_id: str, artifact_id: str) -> Artifact | None:
    if not is_id(artifact_id, "artifact"):
        return None
    return session.scalar(select(Artifact).where(Artifact.owner_id == owner_id, Artifact.id == artifact_id))


def page_of(session: Session, owner_id: str, job_id: str, page: PageQuery) -> tuple[Sequence[Artifact], bool]:
    statement = select(Artifact).where(Artifact.owner_id == owner_id, Artifact.job_id == job_id)
    return read_page(session, statement, Artifact.id, "artifact", page)
