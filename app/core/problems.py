"""Every error leaves as problem+json: handlers, and what routes declare in the OpenAPI document."""

import json
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from obstore.exceptions import BaseError as StorageError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.core.errors import (
    Forbidden,
    Internal,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Problem,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UploadTooLarge,
    ValidationFailed,
)

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_SECONDS: Final = "5"
_SHOWN_CHARACTERS: Final = 300
_MOST_FINDINGS: Final = 100  # a body of 2 MB can have a hundred thousand unknown fields

log = structlog.get_logger()


class BodyTooLarge(HTTPException):
    """An UploadTooLarge raised inside FastAPI's reading of a body, which lets only HTTPExceptions pass."""

    def __init__(self, limit: int) -> None:
        super().__init__(413)
        self.problem = UploadTooLarge(f"The request body is larger than {limit:,} bytes.", limit=limit)


def problem_response(problem: Problem, request_id: str | None) -> Response:
    document = problem.document()
    if request_id is not None:
        document["request_id"] = request_id
    return Response(
        json.dumps(document, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "replace"),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def _answer(request: Request, problem: Problem) -> Response:
    request_id = getattr(request.state, "request_id", None)
    for_people = getattr(request.app.state, "problem_page", None)  # set where the pages are included
    if for_people is not None and (page := for_people(request, problem, request_id)) is not None:
        shown: Response = page
        return shown
    return problem_response(problem, request_id)


def install_handlers(app: FastAPI) -> None:
    """Turn everything that a route may raise into a problem. What is left is the edge's `internal`."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    for error in (OperationalError, InterfaceError, DBAPIError, PoolTimeout, StorageError):
        app.add_exception_handler(error, _on_server_lost)


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(request, error)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, BodyTooLarge):
        return _answer(request, error.problem)
    if error.status_code == 404:
        return _answer(request, NotFound(f"There is nothing at {_shown(request.url.path)}."))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here; {allowed or 'another method'} is."
        return _answer(request, MethodNotAllowed(detail, headers=dict(error.headers or {})))
    if error.status_code < 500:
        return _answer(request, MalformedRequest(str(error.detail)))
    return _answer(request, Internal(str(error.detail)))


def _shown(text: str) -> str:
    """A stranger's text inside a sentence: short, and without what would change how the sentence is read."""
    short = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)


def _on_server_lost(request: Request, error: Exception) -> Response:
    """The database or the storage is away: 503. Any other database error is a defect of ours."""
    lost = isinstance(error, OperationalError | InterfaceError | PoolTimeout | StorageError)
    if not lost and not getattr(error, "connection_invalidated", False):
        raise error
    name = "storage" if isinstance(error, StorageError) else "database"
    log.warning("server.lost", server=name, error=str(error).partition("\n")[0])
    return _answer(
        request,
        Unavailable(
            f"The {name} does not answer.",
            hint="Try again in a few seconds; nothing of this request was kept.",
            headers={"Retry-After": _RETRY_SECONDS},
        ),
    )


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        position = found[0]["loc"][-1]
        reason = found[0].get("ctx", {}).get("error", "")
        return _answer(request, MalformedRequest(f"The body is not JSON: {reason} at character {position}."))
    return _answer(request, validation_problem(found))


def validation_problem(found: Any, prefix: tuple[str, ...] = ()) -> ValidationFailed:
    """Pydantic's findings as one problem: where (a JSON pointer or a parameter) and what."""
    errors = [_finding(item, prefix) for item in found[:_MOST_FINDINGS]]
    first = errors[0]
    where = _shown(first.get("pointer") or first["parameter"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ValidationFailed(f"{where}: {_shown(first['detail'])}{more}.", errors=errors)


def _finding(item: dict[str, Any], prefix: tuple[str, ...]) -> dict[str, str]:
    place, *path = [*prefix, *item["loc"]] or ["body"]
    detail = str(item["msg"]).removeprefix("Value error, ")
    if place == "body":
        return {"pointer": pointer(*path), "detail": detail}
    return {"parameter": ".".join(str(part) for part in path), "in": str(place), "detail": detail}


def pointer(*path: str | int) -> str:
    """A JSON pointer in the URI fragment form of RFC 9457's own example: ``#/compression/target``."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def invalid(path: tuple[str | int, ...], detail: str, *, hint: str | None = None) -> ValidationFailed:
    """One field of the body that is not valid for a reason that no schema can say."""
    return ValidationFailed(detail, hint=hint, errors=[{"pointer": pointer(*path), "detail": detail}])


COMMON: Final[tuple[type[Problem], ...]] = (
    MalformedRequest,
    ValidationFailed,
    Unauthenticated,
    Forbidden,
    RateLimited,
    Internal,
    Overloaded,
    Unavailable,
)


def raises(*problems: type[Problem], common: tuple[type[Problem], ...] = COMMON) -> dict[int | str, Any]:
    """The ``responses`` of a route: what it may raise beside what every route may."""
    by_status: dict[int | str, list[type[Problem]]] = {}
    for problem in dict.fromkeys((*common, *problems)):
        by_status.setdefault(problem.status, []).append(problem)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {
            "description": "; ".join(f"`{problem.code}`: {problem.title}" for problem in group),
            "content": content,
        }
        for status, group in sorted(by_status.items(), key=lambda pair: int(pair[0]))
    }


PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "An error as RFC 9457 describes it.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence with the numbers."},
        "code": {"type": "string", "description": "Stable; for programs."},
        "hint": {"type": "string", "description": "What to do about it."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body."},
                    "parameter": {"type": "string"},
                    "in": {"type": "string"},
                    "line": {"type": "integer", "description": "Of a batch: which job, from 1."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
        "layer": {"type": "string"},
        "limit": {"type": "number"},
        "quota": {"type": "string", "description": "stored_bytes or active_jobs: which one is used up."},
        "used": {"type": "number"},
        "invalid": {"type": "integer", "description": "Of a batch: how many lines are not valid …"},
        "total": {"type": "integer", "description": "… and how many there are."},
        "needed": {"type": "number"},
        "achievable": {
            "type": "number",
            "description": "The smallest share of what the target is about that can be reached.",
        },
    },
}
