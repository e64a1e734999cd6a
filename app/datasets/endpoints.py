"""``/v1/datasets``."""

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
from app.datasets import repository, service
from app.datasets.schemas import (
    ClassMap,
    DatasetFromUpload,
    DatasetOut,
    DatasetWishes,
    show_dataset,
)
from app.datasets.sniff import sniff
from app.uploads.becoming import Becoming
from app.uploads.body import form_or_upload, is_json, read_json
from app.uploads.fields import json_field, parse_field, text_field
from app.uploads.multipart import Upload, receive_upload
from app.uploads.room import room_for_upload

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=OneThread)
_FIELDS: Final = frozenset({"name", "classes"})
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": ".npz with x and y, zip or tar of class folders, or Parquet (one, or an archive)",
        },
        "name": {"type": "string", "maxLength": 200},
        "classes": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": '{"folder or class name": index}; left out: by the table, else sorted',
        },
    },
}


@router.post(
    "",
    status_code=201,
    response_model=DatasetOut,
    openapi_extra=form_or_upload(_FORM, DatasetFromUpload),
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
async def create_dataset(
    request: Request, services: ServicesOf, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Any:
    """Upload a data set, or name a complete upload of /v1/uploads. It is `inspecting` at first, then `ready`
    or `rejected`."""
    settings = services.settings
    if is_json(request):
        asked = await read_json(request, DatasetFromUpload, settings.max_json_bytes)
        return await run_in_threadpool(_create_from_upload, services, caller, asked, idempotency_key)
    async with room_for_upload(services, caller, request, settings.max_dataset_bytes) as room:
        upload = await receive_upload(request, services.store, room.limit, _FIELDS, sniff)
    return await run_in_threadpool(_create_from_form, services, caller, upload, idempotency_key)


def _create_from_form(services: Services, caller: Caller, upload: Upload, key: str | None) -> Any:
    try:
        given = json_field(upload, "classes")
        wishes = DatasetWishes(
            name=text_field(upload, "name"),
            classes=None if given is None else parse_field("classes", given, ClassMap),
        )
        said = [upload.staged.sha256, upload.filename, wishes.model_dump(mode="json")]
        return _create(Becoming(services, caller, "dataset", key), upload, wishes, said)
    finally:
        services.store.discard(upload.staged)  # nothing is left to discard once it was kept


def _create_from_upload(services: Services, caller: Caller, asked: DatasetFromUpload, key: str | None) -> Any:
    becoming = Becoming(services, caller, "dataset", key)
    return becoming.from_upload(asked, lambda upload, said: _create(becoming, upload, asked, said))


def _create(becoming: Becoming, upload: Upload, wishes: DatasetWishes, said: Any) -> Any:
    classes = None if wishes.classes is None else wishes.classes.root

    def make(unit: Unit) -> DatasetOut:
        store, caller = becoming.services.store, becoming.caller
        return show_dataset(
            service.create(unit, store, caller, upload, name=wishes.name, requested_classes=classes)
        )

    return becoming.once(upload, said, make)


@router.get("", responses=raises())
def list_datasets(
    unit: UnitOfWork,
    caller: Reader,
    page: Annotated[PageQuery, Depends(page_query)],
    status: Annotated[Literal["inspecting", "ready", "rejected"] | None, Query()] = None,
    sha256: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{64}$", description="Only uploads of this very file.")
    ] = None,
) -> Listing[DatasetOut]:
    """Your data sets, newest first."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, status, sha256)
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
