"""What a request for a batch brings, as lines: bodies of jobs, each with its number and its place."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError

from app.batches import grid
from app.batches.schemas import BatchCreate, OnError
from app.core.errors import MalformedRequest, Problem, UnsupportedMediaType, ValidationFailed
from app.core.problems import validation_problem
from app.uploads.body import media_type, read_body
from app.uploads.multipart import receive_file

LINES: Final = frozenset(
    {"application/jsonl", "application/x-ndjson", "application/ndjson", "application/x-jsonlines"}
)
FIELDS: Final = frozenset({"name", "on_error"})


@dataclass(frozen=True)
class Received:
    """A request's body, all of it, not yet looked into."""

    data: bytes
    is_lines: bool
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One job that is asked for."""

    number: int
    body: Any = None
    unreadable: Problem | None = None  # instead of a body
    place: tuple[str | int, ...] = ()  # of the body within the request's
    words: str = ""  # of a grid: the combination


@dataclass(frozen=True)
class Wanted:
    """A batch as it is asked for, whichever way it came."""

    lines: Iterable[Line]
    name: str | None
    on_error: OnError


async def receive(request: Request, limit: int) -> Received:
    """Read the body: JSON, JSONL, or a form with a file of JSONL. Raises UploadTooLarge and what a body that
    cannot be read is refused for."""
    kind = media_type(request)
    if kind == "application/json" or kind in LINES:
        return Received(await read_body(request, limit), kind in LINES)
    if kind == "multipart/form-data":
        data, fields = await receive_file(request, limit, FIELDS)
        return Received(data, True, fields)
    raise UnsupportedMediaType(
        f"A batch cannot be sent as {kind[:80] or 'a body without Content-Type'}.",
        hint="Send JSON, job bodies as application/jsonl, or a file of them as the part `file` of a form.",
    )


def wanted(received: Received, name: str | None, on_error: OnError | None, most: int) -> Wanted:
    """The lines. Raises MalformedRequest or ValidationFailed for what is wrong beyond single ones."""
    if received.is_lines:
        return Wanted(_limited(_lines(received.data), most), name, on_error or "abort")
    body = _body(received.data)
    lines: Iterable[Line]
    if body.jobs is not None:
        lines = [Line(i + 1, job, place=("jobs", i)) for i, job in enumerate(body.jobs)]
    else:
        models, axes = body.models or [], grid.axes(body.grid)
        refuse_above(most, grid.size(models, axes))
        combined = enumerate(grid.bodies(models, axes, body.base), 1)
        lines = (Line(number, job, words=words) for number, (job, words) in combined)
    return Wanted(_limited(lines, most), body.name or name, body.on_error or on_error or "abort")


def _body(data: bytes) -> BatchCreate:
    try:
        return BatchCreate.model_validate(json.loads(data))
    except ValidationError as error:
        raise validation_problem(error.errors(), ("body",)) from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from error


def _lines(data: bytes) -> Iterator[Line]:
    """Numbered as an editor numbers them; blank ones are nothing."""
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if raw.strip():
            yield _line(number, raw)


def _line(number: int, raw: bytes) -> Line:
    try:
        return Line(number, json.loads(raw))
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # a number of thousands of digits
        reason = str(error)
    return Line(number, unreadable=MalformedRequest(f"The line is not JSON: {reason}."))


def _limited(lines: Iterable[Line], most: int) -> list[Line]:
    found = []
    for line in lines:
        found.append(line)
        refuse_above(most, len(found))
    return found


def refuse_above(most: int, jobs: int) -> None:
    """Raise ValidationFailed for a batch of too many."""
    if jobs > most:
        raise ValidationFailed(
            f"A batch has at most {most:,} jobs; this one has {'more' if jobs == most + 1 else f'{jobs:,}'}.",
            hint="Send it in parts.",
            limit=most,
        )
