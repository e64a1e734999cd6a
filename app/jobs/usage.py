"""Which jobs need a model or a data set."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.errors import InvalidState
from app.jobs.tables import Job

_NAMED = 3  # ids in the sentence; the count says the rest


def refuse_if_used(
    session: Session, what: str, *, model_id: str | None = None, dataset_id: str | None = None
) -> None:
    """Raise InvalidState naming the jobs that use it. A result without its network would prove nothing."""
    used = Job.model_id == model_id if model_id is not None else Job.dataset_id == dataset_id
    count = session.scalar(select(func.count()).select_from(Job).where(used)) or 0
    if count == 0:
        return
    ids = session.scalars(select(Job.id).where(used).order_by(Job.id).limit(_NAMED)).all()
    more = f" and {count - len(ids)} more" if count > len(ids) else ""
    raise InvalidState(
        f"{what} is used by {count} job{'s' if count > 1 else ''}: {', '.join(ids)}{more}.",
        hint="Delete those jobs first.",
        jobs=list(ids),
    )
