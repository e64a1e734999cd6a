"""``/v1/models``."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.core.errors import (
    ChecksumMismatch,
    IdempotencyConflict,
    InvalidState,
    NotFound,
    QuotaExceeded,
    UnsafeSerialization,
    UnsupportedFormat,
    UploadTooLarge,
)
from app.core.idempotency import IdempotencyKey
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import raises
from app.core.routes import OneThread
from app.core.security import Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, Unit, UnitOfWork
from app.models import repository, service
from app.models.schemas import (
    InputRequest,
    LayerOut,
    ModelFromUpload,
    ModelOut,
    ModelWishes,
    show_model,
)
from app.models.sniff import sniff
from app.uploads.becoming import Becoming
from app.uploads.body import form_or_upload, is_json, read_json
from app.uploads.fields import json_field, parse_field, text_field
from app.uploads.multipart import Upload, receive_upload
from app.uploads.room import room_for_upload

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=OneThread)
_FIELDS: Final = frozenset({"name", "input", "architecture"})
_FILE: Final = "ONNX, .pt2, a zip or tar of a Hugging Face model folder, or weights"
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": _FILE,
        },
        "name": {"type": "string", "maxLength": 200},
        "input": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "How pixels become the input: shape, scale, mean, std, resize …",
        },
        "architecture": {
            "type": "string",
            "maxLength": 200,
            "description": "For a file of weights alone: one of GET /v1/architectures",
        },
    },
}


@router.post(
    "",
    status_code=201,
    response_model=ModelOut,
    openapi_extra=form_or_upload(_FORM, ModelFromUpload),
    responses=raises(
        NotFound,
        InvalidState,
        UploadTooLarge,
        UnsupportedFormat,
        UnsafeSerialization,
        IdempotencyConflict,
        QuotaExceeded,
        ChecksumMismatch,
    ),
)
async def create_model(
    request: Request, services: ServicesOf, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Any:
    """Upload a network, or name a complete upload of /v1/uploads. It is `inspecting` at first, then `ready`
    or `rejected`."""
    settings = services.settings
    if is_json(request):
        asked = await read_json(request, ModelFromUpload, settings.max_json_bytes)
        return await run_in_threadpool(_create_from_upload, services, caller, asked, idempotency_key)
    async with room_for_upload(services, caller, request, settings.max_model_bytes) as room:
        upload = await receive_upload(request, services.store, room.limit, _FIELDS, sniff)
    return await run_in_threadpool(_create_from_form, services, caller, upload, idempotency_key)


def _create_from_form(services: Services, caller: Caller, upload: Upload, key: str | None) -> Any:
    try:
        given = json_field(upload, "input")
        wishes = ModelWishes(
            name=text_field(upload, "name"),
            input=parse_field("input", {} if given is None else given, InputRequest),
            architecture=text_field(upload, "architecture"),
        )
        said = [upload.staged.sha256, upload.filename, wishes.model_dump(mode="json")]
        return _create(Becoming(services, caller, "model", key), upload, wishes, said)
    finally:
        services.store.discard(upload.staged)  # nothing is left to discard once it was kept


def _create_from_upload(services: Services, caller: Caller, asked: ModelFromUpload, key: str | None) -> Any:
    becoming = Becoming(services, caller, "model", key)
    return becoming.from_upload(asked, lambda upload, said: _create(becoming, upload, asked, said))


def _create(becoming: Becoming, upload: Upload, wishes: ModelWishes, said: Any) -> Any:
    def make(unit: Unit) -> ModelOut:
        model = service.create(
            unit,
            becoming.services.store,
            becoming.caller,
            upload,
            name=wishes.name,
            requested_input=wishes.input,
            architecture=wishes.architecture,
        )
        return show_model(model)

    return becoming.once(upload, said, make)


@router.get("", responses=raises())
def list_models(
    unit: UnitOfWork,
    caller: Reader,
    page: Annotated[PageQuery, Depends(page_query)],
    status: Annotated[Literal["inspecting", "ready", "rejected"] | None, Query()] = None,
    sha256: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{64}$", description="Only uploads of this very file.")
    ] = None,
) -> Listing[ModelOut]:
    """Your networks, newest first."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, status, sha256)
    return listing(rows, has_more, show_model)


@router.get("/{model_id}", responses=raises(NotFound))
def get_model(model_id: str, unit: UnitOfWork, caller: Reader) -> ModelOut:
    """One network."""
    return show_model(service.get(unit, caller, model_id))


@router.get("/{model_id}/layers", responses=raises(NotFound, InvalidState))
def list_layers(model_id: str, unit: UnitOfWork, caller: Reader) -> Listing[LayerOut]:
    """The network's layers in the order of execution, all on one page."""
    layers = service.layers(service.get(unit, caller, model_id))
    shown = [LayerOut.model_validate(layer) for layer in layers]
    return Listing[LayerOut](
        data=shown,
        has_more=False,
        first_id=shown[0].name if shown else None,
        last_id=shown[-1].name if shown else None,
    )


@router.delete(
    "/{model_id}", status_code=204, response_class=Response, responses=raises(NotFound, InvalidState)
)
def delete_model(model_id: str, unit: UnitOfWork, services: ServicesOf, caller: Writer) -> None:
    """Delete a network that no job uses, with its plans."""
    service.delete(unit, services, caller, model_id)
