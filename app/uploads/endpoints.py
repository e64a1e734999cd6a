"""``/v1/uploads``: tus 1.0. A body is read only after the key, the headers and the upload were looked at."""

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from app.core.errors import (
    ChecksumMismatch,
    IdempotencyConflict,
    MalformedRequest,
    NotFound,
    OffsetMismatch,
    Problem,
    QuotaExceeded,
    UnsafeSerialization,
    UnsupportedFormat,
    UnsupportedMediaType,
    UnsupportedTusVersion,
    UploadLocked,
    UploadTooLarge,
)
from app.core.idempotency import IdempotencyKey, answer_once
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import raises
from app.core.routes import OneThread
from app.core.security import Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, UnitOfWork, transaction
from app.uploads import documented, repository, service, tus
from app.uploads.formats import check_format
from app.uploads.multipart import drain
from app.uploads.receiving import receive
from app.uploads.schemas import UploadOut, show_upload
from app.uploads.service import Turn

PATH: Final = "/v1/uploads"
router = APIRouter(prefix=PATH, tags=["uploads"], route_class=OneThread)
_WRITING: Final = (
    OffsetMismatch,
    UnsupportedTusVersion,
    UploadTooLarge,
    UnsupportedMediaType,
    UnsupportedFormat,
    UnsafeSerialization,
    UploadLocked,
    ChecksumMismatch,
)


@router.options(
    "",
    status_code=204,
    response_class=Response,
    responses={**raises(), 204: {"description": "The protocol's parts.", "headers": documented.CAPABILITIES}},
)
def describe_protocol(services: ServicesOf, _caller: Reader) -> Response:
    """The version of tus, its extensions, and the largest file."""
    return Response(status_code=204, headers=tus.capabilities(service.limit_of(services.settings, kind=None)))


@router.post(
    "",
    status_code=201,
    response_model=UploadOut,
    openapi_extra=documented.CREATE,
    responses={
        **raises(IdempotencyConflict, QuotaExceeded, *_WRITING),
        201: {"description": "Made.", "headers": documented.LOCATION | documented.PROGRESS},
    },
)
async def create_upload(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Begin a resumable upload, perhaps with its first bytes. Complete, it becomes a network or a data set by
    POST /v1/models or /v1/datasets with `{"upload": "upload_…"}`."""
    tus.check_version(request.headers)
    asked = tus.read_creation(request.headers)
    first = tus.read_first(request.headers) if tus.brings_data(request.headers) else None
    if asked.length == 0:
        check_format(b"", asked.filename, asked.kind)
    answer, turn = await run_in_threadpool(_create, services, caller, asked, first, idempotency_key)
    if isinstance(answer, Response):  # made by an earlier request with the same Idempotency-Key
        answer.headers["Location"] = f"{PATH}/{json.loads(bytes(answer.body))['id']}"
        return answer
    state = tus.State(asked.length, 0, answer.expires_at, locked=False)
    if turn is not None and first is not None:
        state = await _receive(request, services, turn, first)
    response.headers.update(tus.describe(state) | {"Location": f"{PATH}/{answer.id}"})
    return answer.model_copy(update={"received": state.received, "expires_at": state.expires_at})


def _create(
    services: Services, caller: Caller, asked: tus.Creation, first: tus.Append | None, key: str | None
) -> tuple[Any, Turn | None]:
    turns: list[Turn] = []
    with transaction(services) as unit:

        def make() -> UploadOut:
            row = service.create(unit, services.settings, caller, asked)
            if first is not None:
                turns.append(service.take_turn(unit, caller, row.id, first))
            return show_upload(row)

        said = [asked.length, asked.metadata]
        answer = answer_once(unit, caller.owner_id, key, f"POST {PATH}", said, make)
    return answer, turns[0] if turns else None


@router.get("", responses=raises())
def list_uploads(
    unit: UnitOfWork, caller: Reader, page: Annotated[PageQuery, Depends(page_query)]
) -> Listing[UploadOut]:
    """Your uploads that have not become anything yet, newest first."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, unit.now)
    return listing(rows, has_more, show_upload)


@router.get("/{upload_id}", responses=raises(NotFound))
def get_upload(upload_id: str, unit: UnitOfWork, caller: Reader) -> UploadOut:
    """One upload."""
    return show_upload(service.get(unit, caller, upload_id))


@router.head(
    "/{upload_id}",
    response_class=Response,
    openapi_extra=documented.ASK,
    responses={
        **raises(NotFound, UnsupportedTusVersion),
        200: {"description": "Where the upload stands.", "headers": documented.WHOLE},
    },
)
def ask_upload(upload_id: str, request: Request, unit: UnitOfWork, caller: Reader) -> Response:
    """How many bytes have come, from where the next PATCH goes on."""
    tus.check_version(request.headers)
    row = service.get(unit, caller, upload_id)
    return Response(headers=tus.describe_fully(service.state_of(row, unit.now)))


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=documented.APPEND,
    responses={
        **raises(NotFound, *_WRITING),
        204: {"description": "All of it was taken.", "headers": documented.PROGRESS},
    },
)
async def append_to_upload(
    upload_id: str, request: Request, services: ServicesOf, caller: Writer
) -> Response:
    """Send the bytes from Upload-Offset on, all that are left or some. What arrives counts even if the
    connection is cut."""
    tus.check_version(request.headers)
    asked = tus.read_append(request.headers)
    turn = await run_in_threadpool(_take_turn, services, caller, upload_id, asked)
    state = await _receive(request, services, turn, asked)
    return Response(status_code=204, headers=tus.describe(state))


def _take_turn(services: Services, caller: Caller, upload_id: str, asked: tus.Append) -> Turn:
    with transaction(services) as unit:
        return service.take_turn(unit, caller, upload_id, asked)


async def _receive(request: Request, services: Services, turn: Turn, asked: tus.Append) -> tus.State:
    body = request.stream()
    try:
        return await receive(services, turn, body, asked.checksum)
    except Problem:
        await drain(body)
        raise


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=documented.ASK,
    responses=raises(NotFound, UnsupportedTusVersion),
)
def terminate_upload(
    upload_id: str, request: Request, services: ServicesOf, unit: UnitOfWork, caller: Writer
) -> Response:
    """Forget an upload and what has come of it."""
    tus.check_version(request.headers)
    service.terminate(unit, services, caller, upload_id)
    return Response(status_code=204)


@router.post(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=documented.OVERRIDE,
    responses=raises(NotFound, *_WRITING),
)
async def override_method(upload_id: str, request: Request, services: ServicesOf, caller: Writer) -> Response:
    """PATCH or DELETE for clients that can send neither, named in X-HTTP-Method-Override."""
    match request.headers.get("x-http-method-override", "").upper():
        case "PATCH":
            return await append_to_upload(upload_id, request, services, caller)
        case "DELETE":
            return await run_in_threadpool(_terminate, upload_id, request, services, caller)
        case _:
            raise MalformedRequest(
                "POST to an upload needs X-HTTP-Method-Override: PATCH or DELETE.",
                hint="Send PATCH itself, if you can.",
            )


def _terminate(upload_id: str, request: Request, services: Services, caller: Caller) -> Response:
    with transaction(services) as unit:
        return terminate_upload(upload_id, request, services, unit, caller)
