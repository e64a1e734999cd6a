"""``/v1/datasets``."""

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
from app.datasets import repository, service
from app.datasets.schemas import ClassMap, DatasetOut, show_dataset
from app.uploads.fields import json_field, parse_field, text_field
from app.uploads.multipart import Upload, receive_upload
from app.uploads.room import room_for_upload

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
_FIELDS: Final = frozenset({"name", "classes"})
_FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": ".npz with x and y, or zip or tar of class folders",
                        },
                        "name": {"type": "string", "maxLength": 200},
                        "classes": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "description": '{"folder name": index}; left out: folders in sorted order',
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    response_model=DatasetOut,
    openapi_extra=_FORM,
    responses=raises(
        UploadTooLarge, UnsupportedFormat, UnsafeSerialization, IdempotencyConflict, QuotaExceeded
    ),
)
async def create_dataset(
    request: Request, services: ServicesOf, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Any:
    """Upload a data set. It is `inspecting` at first, then `ready` or `rejected`."""
    most = services.settings.max_dataset_bytes
    async with room_for_upload(services, caller, request, most) as room:
        upload = await receive_upload(request, services.store, room.limit, _FIELDS)
    return await run_in_threadpool(_create, services, caller, upload, idempotency_key)


def _create(services: Services, caller: Caller, upload: Upload, key: str | None) -> Any:
    try:
        given = json_field(upload, "classes")
        classes = None if given is None else parse_field("classes", given, ClassMap).root
        name = text_field(upload, "name")
        asked = [upload.staged.sha256, upload.filename, name, classes]
        with transaction(services) as unit:

            def make() -> DatasetOut:
                dataset = service.create(
                    unit, services.store, caller, upload, name=name, requested_classes=classes
                )
                return show_dataset(dataset)

            answer = answer_once(unit, caller.owner_id, key, "POST /v1/datasets", asked, make)
    finally:
        services.store.discard(upload.staged)  # nothing is left to discard once it was kept
    services.metrics.upload_bytes.labels("dataset").inc(upload.staged.bytes)
    return answer


@router.get("", responses=raises())
def list_datasets(
    unit: UnitOfWork,
    caller: Reader,
    page: Annotated[PageQuery, Depends(page_query)],
    status: Annotated[Literal["inspecting", "ready", "rejected"] | None, Query()] = None,
) -> Listing[DatasetOut]:
    """Your data sets, newest first."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, status)
    return listing(rows, has_more, show_dataset)


@router.get("/{dataset_id}", responses=raises(NotFound))
def get_dataset(dataset_id: str, unit: UnitOfWork, caller: Reader) -> DatasetOut:
    """One data set."""
    return show_dataset(service.get(unit, caller, dataset_id))


@router.delete(
    "/{dataset_id}", status_code=204, response_class=Response, responses=raises(NotFound, InvalidState)
)
def delete_dataset(dataset_id: str, unit: UnitOfWork, services: ServicesOf, caller: Writer) -> None:
    """Delete a data set that no job uses."""
    service.delete(unit, services, caller, dataset_id)
