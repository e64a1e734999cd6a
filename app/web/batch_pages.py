"""The pages of batches: a form for new ones, a list, and one page each with what came of it."""

from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, RedirectResponse

from app.batches import repository, service
from app.batches.schemas import show_batch
from app.batches.tables import Batch
from app.core.pagination import PageQuery
from app.core.routes import OneThread
from app.core.security import Reader, Writer
from app.core.unit import ServicesOf, Unit, UnitOfWork
from app.datasets import repository as datasets
from app.datasets.schemas import show_dataset
from app.jobs import repository as jobs
from app.jobs.schemas import show_job
from app.models import repository as models
from app.models.schemas import show_model
from app.web import batch_view, job_view, queries
from app.web.rendering import render
from app.web.shown import Document, pager, plain

router = APIRouter(include_in_schema=False, route_class=OneThread)
CHOICES: Final = 100  # networks and data sets in the form; older ones can be named in a file
POINTS: Final = 5_000


@router.get("/batches")
def batch_list(services: ServicesOf, unit: UnitOfWork, caller: Reader, after: str | None = None) -> Response:
    owner, session = caller.owner_id, unit.session
    page, has_more = repository.page_of(session, owner, PageQuery(after=after))
    counts = repository.counts(session, [row.id for row in page])
    rows = [batch_view.summary(plain(show_batch(row, counts[row.id]))) for row in page]
    ready_models, _ = models.page_of(session, owner, PageQuery(limit=CHOICES), "ready")
    ready_data, _ = datasets.page_of(session, owner, PageQuery(limit=CHOICES), "ready")
    return render(
        "batches.html",
        here="/batches",
        batches=rows,
        busy=any(row["active"] for row in rows),
        models=[plain(show_model(row)) for row in ready_models],
        datasets=[plain(show_dataset(row)) for row in ready_data],
        limits={"bytes": services.settings.max_batch_bytes, "jobs": services.settings.max_batch_jobs},
        may_write=caller.may("write"),
        **pager("/batches", rows, has_more, after),
    )


@router.get("/batches/{batch_id}")
def batch_page(batch_id: str, unit: UnitOfWork, caller: Reader, after: str | None = None) -> Response:
    batch = service.get(unit, caller, batch_id)
    page, has_more = jobs.page_of(
        unit.session, caller.owner_id, PageQuery(after=after, order="asc"), batch=batch.id
    )
    names = queries.model_names(unit.session, {row.model_id for row in page})
    rows = [job_view.summary(plain(show_job(row)), names.get(row.model_id)) for row in page]
    return render(
        "batch.html",
        here="/batches",
        batch=_summary(unit, batch),
        jobs=rows,
        may_write=caller.may("write"),
        **pager(f"/batches/{batch.id}", rows, has_more, after),
    )


@router.get("/batches/{batch_id}/points")
def batch_points(batch_id: str, unit: UnitOfWork, caller: Reader) -> Response:
    """The figures of finished jobs, and not all that their results hold."""
    batch = service.get(unit, caller, batch_id)
    rows = queries.figures_of_batch(unit.session, batch.id, POINTS)
    names = queries.model_names(unit.session, {row.model_id for row in rows})
    return JSONResponse(batch_view.points(rows, names), headers={"Cache-Control": "no-store"})


@router.post("/batches/{batch_id}/cancel")
def cancel_batch(batch_id: str, services: ServicesOf, unit: UnitOfWork, caller: Writer) -> Response:
    service.cancel(unit, services, caller, batch_id)
    return RedirectResponse(f"/batches/{batch_id}", status_code=303)


@router.post("/batches/{batch_id}/delete")
def delete_batch(batch_id: str, services: ServicesOf, unit: UnitOfWork, caller: Writer) -> Response:
    service.delete(unit, services, caller, batch_id)
    return RedirectResponse("/batches", status_code=303)


def _summary(unit: Unit, batch: Batch) -> Document:
    counts = repository.counts(unit.session, [batch.id])[batch.id]
    return batch_view.summary(plain(show_batch(batch, counts)))
