"""The OpenAPI document: FastAPI's own, with problems as problem+json and nothing it invents itself."""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.examples import add_examples
from app.core.errors import UploadTooLarge
from app.core.problems import PROBLEM_SCHEMA, raises

DESCRIPTION = (
    "Trained convolutional networks in, smaller and faster ones out, every number measured. "
    "Errors are `application/problem+json` with a stable `code`."
)
_TOO_LARGE: Final = {str(status): told for status, told in raises(UploadTooLarge, common=()).items()}


def install_document(app: FastAPI) -> None:
    """Let ``app.openapi()`` build our document, once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for invented in ("HTTPValidationError", "ValidationError"):
        schemas.pop(invented, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    for operation in _operations(document):
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            operation["responses"] |= _TOO_LARGE  # said here, as the edge measures every body that is JSON
    add_examples(document)
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document.get("paths", {}).values():
        yield from methods.values()
