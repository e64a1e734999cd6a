"""When work that was lost may be tried again."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, or_
from sqlalchemy.orm import InstrumentedAttribute

LONGEST_WAIT_SECONDS: Final = 600.0  # doubling stops here


def is_due(not_before: InstrumentedAttribute[datetime | None], now: datetime) -> ColumnElement[bool]:
    """Whether the wait is over; one longer than any that we set is a clock that was put back."""
    longest = now + timedelta(seconds=LONGEST_WAIT_SECONDS)
    return or_(not_before.is_(None), not_before <= now, not_before > longest)
