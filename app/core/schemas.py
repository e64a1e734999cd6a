"""Small pieces that request and response models share."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

_DEPTH: Final = 32


def utc_text(moment: datetime) -> str:
    """RFC 3339 in UTC with a Z, as the contract says, whatever zone the driver gave."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(utc_text, return_type=str, when_used="json")]


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


# Control characters, line and paragraph separators, and Unicode's Bidi_Control characters, which change how
# the text around them is read: "gpj.exe" shown as "exe.jpg".
_NOT_IN_NAMES: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
NAME_CHARACTERS: Final = 200


def readable(text: str) -> str:
    """A name that shows what it is, on one line; blank space around it goes."""
    found = _NOT_IN_NAMES.search(text)
    if found is not None:
        raise ValueError(
            f"holds U+{ord(found[0]):04X}, a control character or one that turns the text around it"
        )
    return text.strip()


def _name(value: Any) -> Any:
    return readable(storable(value)) if isinstance(value, str) else value


Storable = BeforeValidator(storable)
Name = Annotated[str, BeforeValidator(_name), Field(min_length=1, max_length=NAME_CHARACTERS)]
