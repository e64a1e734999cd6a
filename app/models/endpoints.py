"""``/v1/models``."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.core.errors import (
    IdempotencyConflict,
    InvalidState,
    NotFound,
    QuotaExceeded,
    UnsafeSerialization,
    UnsupportedFormat,
    UploadTooLarge,
)
from app.core.idempotency import IdempotencyKey, answer_once
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import raises
from app.core.security import Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, UnitOfWork, transaction
from app.models import repository, service
from app.models.schemas import InputRequest, LayerOut, ModelOut, show_model
from app.uploads.fields import json_field, parse_field, text_field
from app.uploads.multipart import Upload, receive_upload
from app.uploads.room import room_for_upload

router = APIRouter(prefix="/v1/models", tags=["models"])
_FIELDS: Final = frozenset({"name", "input", "architecture"})
_FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "ONNX or .pt2"},
                        "name": {"type": "string", "maxLength": 200},
                        "input": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "description": "How pixels become the input: shape, scale, mean, std, resize …",
                        },
                        "architecture": {"type": "string", "maxLength": 200},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    response_model=ModelOut,
    openapi_extra=_FORM,
    responses=raises(
        UploadTooLarge, UnsupportedFormat, UnsafeSerialization, IdempotencyConflict, QuotaExceeded
    ),
)
async def create_model(
    request: Request, services: ServicesOf, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Any:
    """Upload a network. It is `inspecting` at first, then `ready` or `rejected`."""
    most = services.settings.max_model_bytes
    async with room_for_upload(services, caller, request, most) as room:
        upload = await receive_upload(request, services.store, room.limit, _FIELDS)
    return await run_in_threadpool(_create, services, caller, upload, idempotency_key)


def _create(services: Services, caller: Caller, upload: Upload, key: str | None) -> Any:
    try:
        given = json_field(upload, "input")
        requested_input = parse_field("input", {} if given is None else given, InputRequest)
        name, architecture = text_field(upload, "name"), text_field(upload, "architecture")
        asked = [upload.staged.sha256, upload.filename, name, architecture, requested_input.model_dump()]
        with transaction(services) as unit:

            def make() -> ModelOut:
                model = service.create(
                    unit,
                    services.store,
                    caller,
                    upload,
                    name=name,
                    requested_input=requested_input,
                    architecture=architecture,
                )
                return show_model(model)

            answer = answer_once(unit, caller.owner_id, key, "POST /v1/models", asked, make)
    finally:
        services.store.discard(upload.staged)  # nothing is left to discard once it was kept
    services.metrics.upload_bytes.labels("model").inc(upload.staged.bytes)
    return answer


@router.get("", responses=raises())
def list_models(
    unit: UnitOfWork,
    caller: Reader,
    page: Annotated[PageQuery, Depends(page_query)],
    status: Annotated[Literal["inspecting", "ready", "rejected"] | None, Query()] = None,
) -> Listing[ModelOut]:
    """Your networks, newest first."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, status)
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
    """Delete a network that no job uses."""
    service.delete(unit, services, caller, model_id)
