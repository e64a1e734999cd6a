"""Where a list or stream of events goes on: after an event's number, or after its id."""

from sqlalchemy.orm import Session

from app.core.errors import ValidationFailed
from app.core.ids import is_id
from app.jobs import repository

_MOST = 2**31 - 1  # the column is a 32-bit integer


def event_cursor(session: Session, job_id: str, after: str | None) -> int | None:
    """The number that `after` (or Last-Event-ID) stands for; raises ValidationFailed if it is none."""
    if after is None or not after.strip():
        return None
    text = after.strip()
    if text.isascii() and text.isdecimal() and len(text) <= len(str(_MOST)):
        return min(int(text), _MOST)
    if is_id(text, "event") and (seq := repository.event_seq(session, job_id, text)) is not None:
        return seq
    raise ValidationFailed(
        "An event's number or the id of one of this job's events is needed.",
        errors=[{"parameter": "after", "detail": "is neither the number nor the id of one of its events"}],
    )
