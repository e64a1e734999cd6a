"""``/livez``, ``/readyz`` and ``/metrics``."""

from collections.abc import Iterable
from typing import Annotated, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.api.readiness import Checked, Readiness, State, Trouble, room
from app.core import vitals
from app.core.problems import raises
from app.core.routes import OneThread
from app.core.security import OPEN, scraper
from app.core.settings import Settings
from app.core.unit import Services, ServicesOf

router = APIRouter(tags=["health"], route_class=OneThread)


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class TroubleOut(BaseModel):
    """One thing that is wrong, and what helps."""

    check: Checked
    detail: str
    hint: str


class ReadinessOut(BaseModel):
    """Whether this process can serve, what it looked at, and what is wrong."""

    status: Literal["ok", "unavailable"]
    database: State
    migrations: State
    broker: State
    storage: State
    disk: State
    troubles: list[TroubleOut]


async def readiness_of(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


@router.get("/livez", dependencies=[OPEN], responses=raises(common=()))
async def livez() -> Alive:
    """The process answers. Nothing else is looked at, so that a lost server restarts no process."""
    return Alive()


@router.get(
    "/readyz",
    dependencies=[OPEN],
    responses={503: {"model": ReadinessOut, "description": "Something is wrong."}},
)
async def readyz(readiness: Annotated[Readiness, Depends(readiness_of)], response: Response) -> ReadinessOut:
    """Database, its migrations, broker, storage and disk are looked at, once a second at most.

    Without the broker, work is accepted and starts later.
    """
    report = await readiness.report()
    response.status_code = 200 if report.is_ready else 503
    response.headers["Cache-Control"] = "no-store"
    return ReadinessOut(
        status="ok" if report.is_ready else "unavailable",
        **report.states,
        troubles=[_shown(trouble) for trouble in report.troubles],
    )


def _shown(trouble: Trouble) -> TroubleOut:
    return TroubleOut(check=trouble.check, detail=trouble.detail, hint=trouble.hint)


@router.get(
    "/metrics",
    dependencies=[Depends(scraper)],
    response_class=Response,
    responses={**raises(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: ServicesOf, readiness: Annotated[Readiness, Depends(readiness_of)]) -> Response:
    """Prometheus' text format: this process, its siblings and all workers.

    Needs a key with the scope `read` or the token of `BASISCONV_METRICS_TOKEN`.
    """
    look_at_process(services)
    await readiness.report()
    text = await run_in_threadpool(services.metrics.text)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def look_at_process(services: Services) -> None:
    """Bring the gauges up to date. Called in the event loop, whose threads it counts."""
    vitals.look(services.metrics.process, services.engine)
    threads = anyio.to_thread.current_default_thread_limiter()
    services.metrics.threads_busy.set(threads.borrowed_tokens)
    services.metrics.threads_most.set(threads.total_tokens)


def families(readiness: Readiness, settings: Settings) -> Iterable[Metric]:
    """The looks of ``/readyz`` as figures, 1 or 0 (what could not be told is left out), and the disks."""
    up = GaugeMetricFamily(
        "basisconv_up", "Whether what stands behind this process is well.", labels=["check"]
    )
    for check, state in readiness.look().states.items():
        if state != "unknown":
            up.add_metric([check], float(state == "ok"))
    free = GaugeMetricFamily("basisconv_disk_free_bytes", "Room left on the disk.", labels=["folder"])
    total = GaugeMetricFamily("basisconv_disk_bytes", "Size of the disk.", labels=["folder"])
    for folder, disk in room(settings).items():
        free.add_metric([folder], disk.free)
        total.add_metric([folder], disk.total)
    return [up, free, total]
