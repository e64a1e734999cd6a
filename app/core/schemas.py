"""Small pieces that request and response models share."""

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

_DEPTH: Final = 32


def _utc(moment: datetime) -> str:
    """RFC 3339 in UTC with a Z, as the contract says, whatever zone the driver gave."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_utc, return_type=str, when_used="json")]


class Shown(BaseModel):
    """A response."""

    model_config = ConfigDict(frozen=True)


class ProblemDocument(BaseModel):
    """A stored problem: why something was rejected or failed."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None


def storable(value: Any, depth: int = 0) -> Any:
    """A JSON value that PostgreSQL can keep: no NUL, no lone surrogates, no NaN, not endlessly nested."""
    if depth > _DEPTH:
        raise ValueError(f"is nested more than {_DEPTH} levels deep")
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
            raise ValueError("holds a character that cannot be stored (NUL or half of a surrogate pair)")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("holds a number that JSON does not have (NaN or infinite)")
    elif isinstance(value, dict):
        for key, item in value.items():
            storable(key, depth + 1)
            storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            storable(item, depth + 1)
    return value


Storable = BeforeValidator(storable)
Name = Annotated[str, Storable, Field(min_length=1, max_length=200)]
