"""``/v1/jobs``."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.artifacts import repository as artifacts
from app.artifacts.schemas import ArtifactOut, show_artifact
from app.artifacts.tables import Artifact
from app.core.errors import IdempotencyConflict, InvalidState, NotFound, QuotaExceeded
from app.core.idempotency import AnswerOnce
from app.core.ids import is_id
from app.core.pagination import Limit, Listing, PageQuery, listing, page_query
from app.core.problems import raises
from app.core.routes import OneThread, written
from app.core.security import Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, Unit, UnitOfWork, reading
from app.datasets import service as datasets
from app.datasets.schemas import show_dataset
from app.jobs import repository, service
from app.jobs.cursor import event_cursor
from app.jobs.options import JobCreate
from app.jobs.schemas import EventOut, JobOut, MetricPoint, show_event, show_job
from app.jobs.states import ENDED, JobStatus
from app.jobs.stream import follow
from app.jobs.tables import Job
from app.models import service as models
from app.models.schemas import show_model
from app.web.report import MOST_RECIPE_BYTES, Contents, content_policy, render_report

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=OneThread)

_EVENT_STREAM: Final[dict[int | str, Any]] = {
    200: {
        "description": "A page of events; with `Accept: text/event-stream` a stream ending after `done`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The stream was already read to its end; EventSource stops asking."},
}


@router.post(
    "",
    status_code=201,
    response_model=JobOut,
    responses=raises(NotFound, InvalidState, IdempotencyConflict, QuotaExceeded),
)
def create_job(body: JobCreate, unit: UnitOfWork, caller: Writer, once: AnswerOnce) -> Any:
    """Queue a job."""
    return once("POST /v1/jobs", body, lambda: show_job(service.create(unit, caller, body)))


@router.get("", responses=raises())
def list_jobs(
    unit: UnitOfWork,
    caller: Reader,
    page: Annotated[PageQuery, Depends(page_query)],
    status: Annotated[JobStatus | None, Query()] = None,
    batch: Annotated[str | None, Query(max_length=64)] = None,
) -> Listing[JobOut]:
    """Your jobs, newest first."""
    if batch is not None and not is_id(batch, "batch"):
        return listing([], False, show_job)
    rows, has_more = repository.page_of(unit.session, caller.owner_id, page, status, batch)
    return listing(rows, has_more, show_job)


@router.get("/{job_id}", responses=raises(NotFound))
def get_job(job_id: str, unit: UnitOfWork, caller: Reader) -> JobOut:
    """One job, with its result once it has one."""
    return show_job(service.get(unit, caller, job_id))


@router.delete(
    "/{job_id}", status_code=204, response_class=Response, responses=raises(NotFound, InvalidState)
)
def delete_job(job_id: str, unit: UnitOfWork, services: ServicesOf, caller: Writer) -> None:
    """Delete an ended job with its artifacts."""
    service.delete(unit, services, caller, job_id)


@router.post("/{job_id}/cancel", responses=raises(NotFound, InvalidState))
def cancel_job(job_id: str, unit: UnitOfWork, services: ServicesOf, caller: Writer) -> JobOut:
    """Stop a job; asking again while it stops, or after, is no error."""
    return show_job(service.cancel(unit, services, caller, job_id))


@router.get(
    "/{job_id}/events", response_model=Listing[EventOut], responses={**raises(NotFound), **_EVENT_STREAM}
)
async def list_events(
    job_id: str,
    request: Request,
    services: ServicesOf,
    caller: Reader,
    after: Annotated[str | None, Query(max_length=64, description="An event's id or number.")] = None,
    limit: Limit = 20,
    order: Annotated[Literal["asc", "desc"], Query()] = "asc",
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Any:
    """What happened to the job; with `Accept: text/event-stream`, as it happens."""
    if "text/event-stream" not in request.headers.get("accept", ""):
        page = PageQuery(after=after, limit=limit, order=order)
        return await run_in_threadpool(_event_page, services, caller, job_id, page)
    start = await run_in_threadpool(_stream_start, services, caller, job_id, last_event_id or after)
    if start is None:
        return Response(status_code=204)
    return StreamingResponse(
        follow(services, job_id, start),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _event_page(services: Services, caller: Caller, job_id: str, page: PageQuery) -> Response:
    with reading(services) as unit:
        job = service.get(unit, caller, job_id)
        rows, has_more = repository.event_page(
            unit.session,
            job.id,
            event_cursor(unit.session, job.id, page.after),
            page.limit,
            newest_first=page.order == "desc",
        )
        return written(listing(rows, has_more, show_event))


def _stream_start(services: Services, caller: Caller, job_id: str, after: str | None) -> int | None:
    """The number after which the stream begins; None when nothing is left to say."""
    with reading(services) as unit:
        job = service.get(unit, caller, job_id)
        seq = event_cursor(unit.session, job.id, after) or 0
        more, _ = repository.event_page(unit.session, job.id, seq, 1, newest_first=False)
        return None if job.status in ENDED and not more else seq


@router.get("/{job_id}/metrics", responses=raises(NotFound))
def get_metrics(job_id: str, unit: UnitOfWork, caller: Reader) -> dict[str, list[MetricPoint]]:
    """Every measured series by name: train_loss, learning_rate, accuracy …"""
    series: dict[str, list[MetricPoint]] = {}
    for row in repository.metrics(unit.session, service.get(unit, caller, job_id).id):
        series.setdefault(row.name, []).append(MetricPoint(step=row.step, value=row.value, at=row.at))
    return series


@router.get("/{job_id}/artifacts", responses=raises(NotFound))
def list_artifacts(
    job_id: str, unit: UnitOfWork, caller: Reader, page: Annotated[PageQuery, Depends(page_query)]
) -> Listing[ArtifactOut]:
    """The files that the job made."""
    job = service.get(unit, caller, job_id)
    rows, has_more = artifacts.page_of(unit.session, caller.owner_id, job.id, page)
    return listing(rows, has_more, show_artifact)


@router.get("/{job_id}/report", response_class=HTMLResponse, responses=raises(NotFound, InvalidState))
def get_report(job_id: str, unit: UnitOfWork, services: ServicesOf, caller: Reader) -> HTMLResponse:
    """The job as one self-contained HTML file, to keep or to print."""
    job = service.get(unit, caller, job_id)
    if job.status not in ENDED:
        raise InvalidState(
            f"The job {job.id} is {job.status}; its report exists once it has ended.",
            hint="Follow /v1/jobs/{id}/events until `done`.",
        )
    contents = _contents(unit, services, caller, job)
    return HTMLResponse(render_report(contents, unit.now), headers=_report_headers(job.id))


def _contents(unit: Unit, services: Services, caller: Caller, job: Job) -> Contents:
    model = models.get(unit, caller, job.model_id)
    dataset = None if job.dataset_id is None else datasets.get(unit, caller, job.dataset_id)
    made, _ = artifacts.page_of(unit.session, caller.owner_id, job.id, PageQuery(limit=100, order="asc"))
    series: dict[str, list[tuple[int, float]]] = {}
    for row in repository.metrics(unit.session, job.id):
        series.setdefault(row.name, []).append((row.step, row.value))
    return Contents(
        job=show_job(job).model_dump(mode="json"),
        model=show_model(model).model_dump(mode="json"),
        layers=model.layers or [],
        dataset=None if dataset is None else show_dataset(dataset).model_dump(mode="json"),
        files=[show_artifact(one).model_dump(mode="json") for one in made],
        metrics=series,
        recipe=_recipe(services, made),
    )


def _recipe(services: Services, made: Sequence[Artifact]) -> str | None:
    """What recipe.json says, where it is short enough to be read."""
    found = next((one for one in made if one.format == "recipe"), None)
    if found is None or found.bytes > MOST_RECIPE_BYTES:
        return None
    return b"".join(services.store.read(found.sha256, 0, found.bytes)).decode("utf-8", "replace")


def _report_headers(job_id: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'inline; filename="{job_id}.html"',
        "Content-Security-Policy": content_policy(),
    }
