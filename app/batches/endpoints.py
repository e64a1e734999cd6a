"""``/v1/batches``."""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.batches import reading, repository, service
from app.batches.schemas import ON_ERROR, BatchCreate, BatchOut, OnError, show_batch
from app.batches.tables import Batch
from app.core.errors import (
    IdempotencyConflict,
    InvalidState,
    NotFound,
    QuotaExceeded,
    UnsupportedMediaType,
    UploadTooLarge,
)
from app.core.idempotency import IdempotencyKey, answer_once
from app.core.pagination import Listing, PageQuery, listing, page_query
from app.core.problems import invalid, raises
from app.core.routes import OneThread
from app.core.schemas import NAME_CHARACTERS, readable
from app.core.security import Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, Unit, UnitOfWork, transaction
from app.jobs.schemas import show_job
from app.uploads.body import described

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=OneThread)
PATH: Final = "/v1/batches"
_ROUTE: Final = "POST /v1/batches"
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSONL: one job body a line."},
        "name": {"type": "string", "maxLength": NAME_CHARACTERS},
        "on_error": {"type": "string", "enum": ["abort", "skip"], "description": ON_ERROR},
    },
}
_BODIES: Final = described(
    {
        "application/json": BatchCreate,
        "application/jsonl": {
            "type": "string",
            "description": "Job bodies as POST /v1/jobs takes them, one a line.",
        },
        "multipart/form-data": _FORM,
    }
)
_RESULTS: Final[dict[int | str, Any]] = {
    200: {
        "description": "A job a line, as GET /v1/jobs/{id} shows it, with the `line` that it came from.",
        "content": {"application/jsonl": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "",
    status_code=201,
    response_model=BatchOut,
    openapi_extra=_BODIES,
    responses=raises(IdempotencyConflict, QuotaExceeded, UploadTooLarge, UnsupportedMediaType),
)
async def create_batch(
    request: Request,
    services: ServicesOf,
    caller: Writer,
    name: Annotated[str | None, Query(max_length=NAME_CHARACTERS, description="Of a body of JSONL.")] = None,
    on_error: Annotated[OnError | None, Query(description="Of a body of JSONL. " + ON_ERROR)] = None,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Queue many jobs. Every line is looked at before any is started; errors tell the line and the place."""
    received = await reading.receive(request, services.settings.max_batch_bytes)
    name = _name(received.fields.get("name") or name)
    on_error = _on_error(received.fields.get("on_error")) or on_error
    return await run_in_threadpool(_create, services, caller, received, name, on_error, idempotency_key)


def _create(
    services: Services,
    caller: Caller,
    received: reading.Received,
    name: str | None,
    on_error: OnError | None,
    key: str | None,
) -> Any:
    wanted = reading.wanted(received, name, on_error, services.settings.max_batch_jobs)
    said = [_meaning(received), wanted.name, wanted.on_error]
    with transaction(services) as unit:

        def make() -> BatchOut:
            batch = service.create(unit, caller, wanted)
            return show_batch(batch, {"queued": batch.total - batch.invalid})

        return answer_once(unit, caller.owner_id, key, _ROUTE, said, make)


def _meaning(received: reading.Received) -> str:
    """A hash of what was sent; in JSON neither spaces nor the order of members count."""
    data = (
        received.data if received.is_lines else json.dumps(json.loads(received.data), sort_keys=True).encode()
    )
    return hashlib.sha256(data).hexdigest()


def _name(given: str | None) -> str | None:
    try:
        name = readable(given or "")
    except ValueError as error:
        raise invalid(("name",), f"`name` {error}.") from error
    if len(name) > NAME_CHARACTERS:
        raise invalid(("name",), f"`name` has {len(name)} characters; at most {NAME_CHARACTERS} are kept.")
    return name or None


def _on_error(given: str | None) -> OnError | None:
    match given or None:
        case None | "abort" | "skip" as known:
            return known
        case other:
            raise invalid(("on_error",), f"`on_error` is abort or skip, not {other[:40]!r}.")


@router.get("", responses=raises())
def list_batches(
    unit: UnitOfWork, caller: Reader, page: Annotated[PageQuery, Depends(page_query)]
) -> Listing[BatchOut]:
    """Your batches, newest first."""
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page)
    counts = repository.counts(unit.session, [row.id for row in rows])
    return listing(rows, has_more, lambda row: show_batch(row, counts[row.id]))


@router.get("/{batch_id}", responses=raises(NotFound))
def get_batch(batch_id: str, unit: UnitOfWork, caller: Reader) -> BatchOut:
    """One batch and how far it is. Its jobs: `GET /v1/jobs?batch=…`."""
    return _shown(unit, service.get(unit, caller, batch_id))


@router.post("/{batch_id}/cancel", responses=raises(NotFound, InvalidState))
def cancel_batch(batch_id: str, unit: UnitOfWork, services: ServicesOf, caller: Writer) -> BatchOut:
    """Stop a batch: what waits at once, what runs within seconds; asking again is no error."""
    return _shown(unit, service.cancel(unit, services, caller, batch_id))


@router.delete(
    "/{batch_id}", status_code=204, response_class=Response, responses=raises(NotFound, InvalidState)
)
def delete_batch(batch_id: str, unit: UnitOfWork, services: ServicesOf, caller: Writer) -> None:
    """Delete an ended batch with its jobs and their artifacts."""
    service.delete(unit, services, caller, batch_id)


@router.get(
    "/{batch_id}/results", response_class=StreamingResponse, responses={**raises(NotFound), **_RESULTS}
)
def get_results(batch_id: str, unit: UnitOfWork, services: ServicesOf, caller: Reader) -> StreamingResponse:
    """What has ended so far, as JSONL in the order of the lines; then the invalid lines with their errors."""
    batch = service.get(unit, caller, batch_id)
    return StreamingResponse(
        _results(services, batch),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{batch.id}.jsonl"'},
    )


def _results(services: Services, batch: Batch) -> Iterator[bytes]:
    for job in repository.ended_jobs(services.sessions, batch.id):
        yield _line({"line": job.batch_line} | show_job(job).model_dump(mode="json"))
    for error in batch.errors:
        yield _line({"line": error["line"], "object": "job", "status": "invalid", "error": error})


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def _shown(unit: Unit, batch: Batch) -> BatchOut:
    return show_batch(batch, repository.counts(unit.session, [batch.id])[batch.id])
