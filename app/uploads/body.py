"""The JSON that uses a resumable upload, at addresses that take a form with a file as well."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import MalformedRequest, UploadTooLarge
from app.core.problems import validation_problem

M = TypeVar("M", bound=BaseModel)


class FromUpload(BaseModel):
    """A complete upload instead of a file."""

    model_config = ConfigDict(extra="forbid")

    upload: Annotated[str, Field(max_length=64, description="The id of a complete upload, `upload_…`.")]
    sha256: (
        Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="What the file's SHA-256 must be.")]
        | None
    ) = None


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(request: Request) -> bool:
    return media_type(request) == "application/json"


async def read_body(request: Request, limit: int) -> bytes:
    """All of the body. Raises UploadTooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise UploadTooLarge(f"The request body is larger than {limit:,} bytes.", limit=limit)
    return bytes(body)


async def read_json(request: Request, kind: type[M], limit: int) -> M:
    """The body as this model. Raises UploadTooLarge, MalformedRequest or ValidationFailed."""
    try:
        given = json.loads(await read_body(request, limit))
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(
            f"The body is not JSON: {error}.",
            hint='Send {"upload": "upload_…"} of a complete upload, or a form with the file.',
        ) from error
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise validation_problem(error.errors(), ("body",)) from error


def form_or_upload(form: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """Both bodies as the OpenAPI document describes them."""
    return described({"multipart/form-data": form, "application/json": kind})


def described(bodies: Mapping[str, dict[str, Any] | type[BaseModel]]) -> dict[str, Any]:
    """A body of one of several media types, as the OpenAPI document describes it."""
    content = {
        media: {"schema": body if isinstance(body, dict) else _inlined(body.model_json_schema())}
        for media, body in bodies.items()
    }
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$defs`, which have no place of their own there. None of ours refers to itself."""
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = definitions[node["$ref"].rsplit("/", 1)[-1]]
            return resolve(target | {name: value for name, value in node.items() if name != "$ref"})
        return {name: resolve(value) for name, value in node.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
