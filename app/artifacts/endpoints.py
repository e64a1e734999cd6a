"""``/v1/artifacts``: the bytes of what jobs made."""

from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from app.artifacts import repository
from app.artifacts.ranges import parse_range
from app.artifacts.schemas import ArtifactOut, show_artifact
from app.artifacts.tables import Artifact
from app.core.errors import NotFound, RangeNotSatisfiable, known
from app.core.problems import raises
from app.core.routes import OneThread
from app.core.security import Caller, Reader
from app.core.unit import ServicesOf, Unit, UnitOfWork

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], route_class=OneThread)
_BYTES: Final = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("/{artifact_id}", responses=raises(NotFound))
def get_artifact(artifact_id: str, unit: UnitOfWork, caller: Reader) -> ArtifactOut:
    """What is known of the file."""
    return show_artifact(_find(unit, caller, artifact_id))


@router.head("/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/{artifact_id}/content",
    response_class=Response,
    responses={
        **raises(NotFound, RangeNotSatisfiable),
        200: {"description": "The file.", **_BYTES},
        206: {"description": "The asked part of it.", **_BYTES},
        304: {"description": "The copy that If-None-Match names is still right."},
    },
)
def get_content(
    artifact_id: str,
    request: Request,
    unit: UnitOfWork,
    services: ServicesOf,
    caller: Reader,
    range_header: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
    if_range: Annotated[str | None, Header(max_length=200)] = None,
    if_none_match: Annotated[str | None, Header(max_length=4000)] = None,
) -> Response:
    """The file's bytes, or a range of them. ETag is the SHA-256."""
    artifact = _find(unit, caller, artifact_id)
    etag = f'"{artifact.sha256}"'
    headers = _headers(artifact, etag)
    if if_none_match is not None and _names(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    wanted = parse_range(range_header, artifact.bytes) if if_range in (None, etag) else None
    start, end = wanted or (0, artifact.bytes)
    headers["Content-Length"] = str(end - start)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.bytes}"
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=artifact.media_type)
    chunks = services.store.read(artifact.sha256, start, end)
    return StreamingResponse(chunks, status_code=status, headers=headers, media_type=artifact.media_type)


def _find(unit: Unit, caller: Caller, artifact_id: str) -> Artifact:
    return known(repository.find(unit.session, caller.owner_id, artifact_id), "artifact", artifact_id)


def _headers(artifact: Artifact, etag: str) -> dict[str, str]:
    return {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(artifact.name),
        "Cache-Control": "private, max-age=31536000, immutable",  # the address never gets other bytes
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def content_disposition(name: str) -> str:
    """`attachment` with a name that every client can save: plain ASCII, and the exact one beside it."""
    plain = (
        "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name).strip(" .")
        or "file"
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _names(if_none_match: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag in tags
