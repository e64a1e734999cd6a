"""Text fields of an upload form as checked values."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.core.problems import invalid, validation_problem
from app.core.schemas import NAME_CHARACTERS, readable, storable
from app.uploads.multipart import Upload

M = TypeVar("M", bound=BaseModel)


def text_field(upload: Upload, name: str) -> str | None:
    """A short text, or None where it is left out or empty, as browsers send unfilled fields."""
    try:
        text = readable(upload.fields.get(name, ""))
    except ValueError as error:
        raise invalid((name,), f"`{name}` {error}.") from error
    if len(text) > NAME_CHARACTERS:
        raise invalid((name,), f"`{name}` has {len(text)} characters; at most {NAME_CHARACTERS} are kept.")
    return text or None


def json_field(upload: Upload, name: str) -> Any:
    """The JSON value of a field, or None where it is left out or empty."""
    text = upload.fields.get(name, "").strip()
    if not text:
        return None
    try:
        return storable(json.loads(text))
    except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError
        raise invalid((name,), f"`{name}` is not valid JSON: {error}.") from error


def parse_field(name: str, value: Any, kind: type[M]) -> M:
    """A field's JSON value read as this model; raises ValidationFailed with pointers into the field."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise validation_problem(error.errors(), ("body", name)) from error
