"""The JSON that uses a resumable upload, at addresses that take a form with a file as well."""

import json
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


def is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


async def read_json(request: Request, kind: type[M], limit: int) -> M:
    """The body as this model. Raises UploadTooLarge, MalformedRequest or ValidationFailed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise UploadTooLarge(f"The request body is larger than {limit:,} bytes.", limit=limit)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from error
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise validation_problem(error.errors(), ("body",)) from error


def form_or_upload(form: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """Both bodies as the OpenAPI document describes them."""
    schema = _inlined(kind.model_json_schema())
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": schema},
            },
        }
    }


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
