"""The browser's pages: rendered here, kept alive by htmx and the event stream, all data as REST shows it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from app.artifacts import repository as artifacts
from app.artifacts.schemas import show_artifact
from app.core import security
from app.core.errors import MalformedRequest, Problem, Unauthenticated
from app.core.pagination import PageQuery
from app.core.routes import OneThread
from app.core.security import OPEN, Caller, Reader, Writer
from app.core.unit import Services, ServicesOf, Unit, UnitOfWork, get_services
from app.datasets import repository as datasets
from app.datasets import service as dataset_service
from app.datasets.schemas import show_dataset
from app.jobs import repository as jobs
from app.jobs import service as job_service
from app.jobs.schemas import show_job
from app.jobs.tables import Job
from app.models import repository as models
from app.models import service as model_service
from app.models.architectures import KNOWN
from app.models.schemas import show_model
from app.web import compare, example, job_view, queries, result_view, wording
from app.web.assets import STATIC
from app.web.rendering import render
from app.web.shown import Document, pager, plain

router = APIRouter(include_in_schema=False, route_class=OneThread)

_RECENT: Final = 6
_CHOICES: Final = 50  # models and data sets in the form's lists; older ones have their own pages
_FILES: Final = 100
_COMPARED: Final = 100  # runs beside each other
_SIGN_IN_BYTES: Final = 10_000


# Signing in


@router.get("/", dependencies=[OPEN])  # the sign-in link has no session yet; the form asks for `read` below
def home(
    request: Request,
    services: ServicesOf,
    unit: UnitOfWork,
    token: str | None = None,
    model: str = "",
    dataset: str = "",
    job: str = "",
) -> Response:
    """The form, filled with a job that was sent before; a sign-in page for strangers and by its link."""
    if token is not None:
        return security.sign_in_by_token(services, token)
    caller = security.holding(security.current_owner(request), "read")
    if not job:
        return _form(services, unit, caller, Choice(model, dataset))
    again = plain(show_job(job_service.get(unit, caller, job)))
    return _form(services, unit, caller, Choice(again["model"], again["dataset"] or "", again))


@router.post("/sign-in", dependencies=[OPEN])
async def sign_in(request: Request, services: ServicesOf) -> Response:
    """The form with a pasted key. Its body is read by hand, so that nobody can make us hold a large one."""
    security.refuse_cross_site(request)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _SIGN_IN_BYTES:
            raise MalformedRequest("This is no API key.")
    key = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip()
    return await run_in_threadpool(security.sign_in_by_key, services, key)


@router.post("/sign-out", dependencies=[OPEN])
def sign_out(request: Request) -> Response:
    security.refuse_cross_site(request)
    response = RedirectResponse("/", status_code=303)
    security.end_session(response)
    return response


# The pages


@dataclass(frozen=True)
class Choice:
    """What the form shows chosen: ids, and the job that is to be run again."""

    model: str = ""
    dataset: str = ""
    again: Document | None = None


def _form(services: Services, unit: Unit, caller: Caller, chosen: Choice) -> Response:
    recent, _ = _job_page(unit, caller, PageQuery(limit=_RECENT))
    settings = services.settings
    return render(
        "home.html",
        here="/",
        models=_choices(unit, caller, models, chosen.model, show_model),
        datasets=_choices(unit, caller, datasets, chosen.dataset, show_dataset),
        jobs=recent,
        busy=any(job["active"] for job in recent),
        limits={"model": settings.max_model_bytes, "dataset": settings.max_dataset_bytes},
        example=example.available() and caller.may("write"),
        chosen=chosen,
        architectures=KNOWN.values(),
    )


def _choices(unit: Unit, caller: Caller, repository: Any, chosen: str, show: Any) -> list[Document]:
    """The newest that are ready, and the chosen one however old it is."""
    rows, _ = repository.page_of(unit.session, caller.owner_id, PageQuery(limit=_CHOICES), "ready")
    if chosen and all(row.id != chosen for row in rows):
        older = repository.find(unit.session, caller.owner_id, chosen)
        rows = [*rows, *([older] if older is not None and older.status == "ready" else [])]
    return [plain(show(row)) for row in rows]


@router.post("/example")
async def send_example(request: Request, services: ServicesOf, caller: Writer) -> Response:
    """The bundled example's files as uploads. A script sends the job next; without one the form is filled."""
    sent = await example.send(services, caller)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(asdict(sent))
    return RedirectResponse(f"/?model={sent.model}&dataset={sent.dataset}", status_code=303)


@router.get("/jobs")
def job_list(unit: UnitOfWork, caller: Reader, after: str | None = None) -> Response:
    rows, has_more = _job_page(unit, caller, PageQuery(after=after))
    busy = any(job["active"] for job in rows)
    return render("jobs.html", here="/jobs", jobs=rows, busy=busy, **pager("/jobs", rows, has_more, after))


@router.get("/jobs/{job_id}")
def job_page(job_id: str, services: ServicesOf, unit: UnitOfWork, caller: Reader) -> Response:
    row = job_service.get(unit, caller, job_id)
    document = plain(show_job(row))
    model = model_service.get(unit, caller, row.model_id)
    dataset = None if row.dataset_id is None else dataset_service.get(unit, caller, row.dataset_id)
    events, last_event = queries.course(unit.session, row.id)
    made, _ = artifacts.page_of(unit.session, caller.owner_id, row.id, PageQuery(limit=_FILES, order="asc"))
    result = document["result"]
    return render(
        "job.html",
        here="/jobs",
        job=job_view.summary(document, model.name),
        model=plain(show_model(model)),
        dataset=None if dataset is None else plain(show_dataset(dataset)),
        stages=job_view.stages(document, events),
        last_event=last_event,
        result=None if result is None else result_view.show(document, model.layers or []),
        files=job_view.files([plain(show_artifact(artifact)) for artifact in made], result),
        has_curves=queries.has_curves(unit.session, row.id),
        request_text=job_view.request_text(services.settings.public_url, document),
    )


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: str, services: ServicesOf, unit: UnitOfWork, caller: Writer) -> Response:
    """The cancel button where no script runs."""
    job_service.cancel(unit, services, caller, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


@router.get("/models")
def model_list(unit: UnitOfWork, caller: Reader, after: str | None = None) -> Response:
    page, has_more = models.page_of(unit.session, caller.owner_id, PageQuery(after=after))
    rows = [plain(show_model(row)) for row in page]
    links = pager("/models", rows, has_more, after)
    return render("models.html", here="/models", models=rows, busy=_inspecting(rows), **links)


@router.get("/models/{model_id}")
def model_page(model_id: str, unit: UnitOfWork, caller: Reader) -> Response:
    row = model_service.get(unit, caller, model_id)
    layers = row.layers or []
    macs, params = ([layer[unit_] for layer in layers] for unit_ in ("macs", "params"))
    ready_data, _ = datasets.page_of(unit.session, caller.owner_id, PageQuery(limit=_CHOICES), "ready")
    model, data = plain(show_model(row)), [plain(show_dataset(one)) for one in ready_data]
    able = row.status == "ready" and any(layer["compressible"] for layer in layers)
    return render(
        "model.html",
        here="/models",
        model=model,
        layers=layers,
        total=sum(macs),
        largest=max(macs, default=1) or 1,
        total_params=sum(params),
        largest_params=max(params, default=1) or 1,
        plannable=able and caller.may("write"),
        reasons=wording.REASONS,
        datasets=data,
        chosen_dataset=next((one["id"] for one in data if able and _fits(one, model)), ""),
    )


@router.get("/models/{model_id}/compare")
def compare_model(model_id: str, unit: UnitOfWork, caller: Reader) -> Response:
    """All finished runs of one network."""
    model = model_service.get(unit, caller, model_id)
    runs = queries.finished_runs(unit.session, caller.owner_id, model.id, _COMPARED + 1)
    return _comparison(unit, runs[:_COMPARED], model=plain(show_model(model)), more=len(runs) > _COMPARED)


@router.get("/compare")
def compare_jobs(
    unit: UnitOfWork, caller: Reader, job: Annotated[list[str] | None, Query(max_length=_COMPARED)] = None
) -> Response:
    """The finished ones of these jobs; with one network, as runs of that."""
    rows = [job_service.get(unit, caller, one) for one in dict.fromkeys(job or [])]
    runs = [row for row in rows if row.result is not None]
    models_of = {row.model_id for row in runs}
    one = model_service.get(unit, caller, models_of.pop()) if len(models_of) == 1 else None
    return _comparison(unit, runs, model=None if one is None else plain(show_model(one)), more=False)


def _comparison(unit: Unit, runs: Sequence[Job], *, model: Document | None, more: bool) -> Response:
    names = queries.model_names(unit.session, {run.model_id for run in runs})
    documents = [plain(show_job(run)) for run in runs]
    return render(
        "compare.html",
        here="/models" if model else "/jobs",
        model=model,
        points=compare.points(documents, names),
        rows=compare.rows(documents),
        columns=result_view.FINAL,
        more=more,
    )


def _fits(dataset: Document, model: Document) -> bool:
    """Whether the images look like the network's own: as many channels, and as many classes as scores."""
    channels, outputs = model["input"]["shape"][0], model["summary"]["outputs"]
    image = dataset["image"]
    return (image is None or image[2] == channels) and bool([dataset["classes"]] == outputs)


@router.get("/datasets")
def dataset_list(unit: UnitOfWork, caller: Reader, after: str | None = None) -> Response:
    page, has_more = datasets.page_of(unit.session, caller.owner_id, PageQuery(after=after))
    rows = [plain(show_dataset(row)) for row in page]
    links = pager("/datasets", rows, has_more, after)
    return render("datasets.html", here="/datasets", datasets=rows, busy=_inspecting(rows), **links)


@router.get("/docs", dependencies=[OPEN])
def rest_description(request: Request) -> Response:
    """The interactive description; it shows nothing that needs a key."""
    return render("docs.html", here="/docs", signed_in=security.COOKIE in request.cookies)


@router.get("/favicon.ico", dependencies=[OPEN])
def favicon() -> Response:
    headers = {"Cache-Control": "max-age=86400"}
    return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml", headers=headers)


# Problems


def _wants_page(request: Request) -> bool:
    """Whether a person's browser asks for a page, and not a program or a script for data."""
    path = request.url.path
    is_data = path.startswith(("/v1/", "/static/")) or path in {"/v1", "/openapi.json", "/metrics"}
    return not is_data and "text/html" in request.headers.get("accept", "")


def problem_page(request: Request, problem: Problem, request_id: str | None) -> Response | None:
    """A problem for people, with the sign-in form where that is what is missing; None for programs."""
    if not _wants_page(request):
        return None
    document = problem.document() | {"request_id": request_id}
    if isinstance(problem, Unauthenticated):
        tried = request.method == "POST" or "token" in request.query_params
        public_url = get_services(request).settings.public_url
        return render(
            "sign_in.html",
            problem.status if tried else 200,
            signed_in=False,
            public_url=public_url,
            error=document if tried else None,
        )
    signed_in = security.COOKIE in request.cookies
    return render("problem.html", problem.status, signed_in=signed_in, problem=document)


# Helpers


def _job_page(unit: Unit, caller: Caller, page: PageQuery) -> tuple[list[Document], bool]:
    rows, has_more = jobs.page_of(unit.session, caller.owner_id, page)
    names = queries.model_names(unit.session, {row.model_id for row in rows})
    return [job_view.summary(plain(show_job(row)), names.get(row.model_id)) for row in rows], has_more


def _inspecting(rows: list[Document]) -> bool:
    return any(row["status"] == "inspecting" for row in rows)
