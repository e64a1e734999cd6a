"""The web application, put together from its settings."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware

from app.api import health, readiness
from app.api.document import install_document
from app.api.router import ROUTERS, is_streamed
from app.core.board import Board
from app.core.board import families as worker_families
from app.core.clock import Clock, SystemClock
from app.core.db import make_engine, make_sessions
from app.core.edge import Edge
from app.core.events import BusListener, BusPublisher
from app.core.metrics import Metrics
from app.core.problems import install_handlers
from app.core.queue import CeleryDoorbell, Doorbell
from app.core.rate import MemoryMeter, SteadyMeter, ValkeyMeter
from app.core.rounds import Rounds
from app.core.settings import Settings
from app.core.unit import Services
from app.jobs.gauge import families as work_families
from app.jobs.reaper import Reaper
from app.storage.janitor import Janitor
from app.storage.store import SHORT_RETRY_SECONDS, Store, open_store
from app.uploads.endpoints import PATH as UPLOADS
from app.uploads.headers import TusHeaders
from app.uploads.sweeper import Sweeper
from app.web import batch_pages, pages, webhook_pages
from app.web.assets import Assets
from app.webhooks.sender import Sender

API_VERSION: Final = "1"  # of the contract, not of the package
_VITALS_SECONDS: Final = 5


def build_services(
    settings: Settings,
    *,
    store: Store | None = None,
    doorbell: Doorbell | None = None,
    clock: Clock | None = None,
) -> Services:
    """The real parts, or the ones given."""
    broker_url = settings.broker_url.get_secret_value()
    engine = make_engine(settings.database_url.get_secret_value(), answer_seconds=settings.database_seconds)
    sessions = make_sessions(engine)
    return Services(
        settings=settings,
        engine=engine,
        sessions=sessions,
        store=store or open_store(settings.objects_url(), SHORT_RETRY_SECONDS),
        doorbell=doorbell or CeleryDoorbell(broker_url),
        publisher=BusPublisher(broker_url),
        listener=BusListener(broker_url),
        metrics=Metrics(),
        meter=SteadyMeter(ValkeyMeter(broker_url), MemoryMeter()),
        clock=clock or SystemClock(),
    )


def create_app(settings: Settings, services: Services | None = None) -> FastAPI:
    """The application. Nothing is contacted before its lifespan begins or a request comes."""
    services = services or build_services(settings)
    app = FastAPI(
        title="BasisConv",
        version=API_VERSION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.services = services
    app.state.readiness = readiness.readiness_of(services)
    for router in ROUTERS:
        app.include_router(router)
    _include_pages(app)
    install_handlers(app)
    install_document(app)
    _show_figures(services, app.state.readiness)
    app.add_middleware(TusHeaders, prefix=UPLOADS)
    app.add_middleware(Edge, services=services, is_streamed=is_streamed)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The bus and what comes round live as long as the process serves."""
    services: Services = app.state.services
    stop = threading.Event()
    threads = [
        threading.Thread(target=part.run, args=(stop,), name=part.name, daemon=True)
        for part in rounds_of(services)
    ]
    for thread in threads:
        thread.start()
    vitals = asyncio.create_task(_look_at_process(services))
    try:
        async with services.listener.running():
            yield
    finally:
        vitals.cancel()
        app.state.readiness.close()
        stop.set()
        for thread in threads:
            await run_in_threadpool(thread.join, 5)
        services.publisher.close()
        services.engine.dispose()


def rounds_of(services: Services) -> list[Rounds]:
    """What comes round in this process or in one of its siblings."""
    sessions, store, clock = services.sessions, services.store, services.clock
    settings = services.settings
    counted = services.metrics.work
    return [
        Reaper(sessions, store, services.doorbell, clock, settings, services.publisher, counted),
        Sweeper(sessions, store, clock, settings),
        Janitor(sessions, store, clock, settings),
        Sender(sessions, clock, settings),
    ]


def _show_figures(services: Services, looked_at: readiness.Readiness) -> None:
    """What `/metrics` shows beside what this process and its siblings counted."""
    board = Board(services.settings.broker_url.get_secret_value())
    services.metrics.shown += [
        lambda: work_families(services.sessions, services.clock),
        lambda: worker_families(board),
        lambda: health.families(looked_at, services.settings),
    ]


async def _look_at_process(services: Services) -> None:
    """Keep this process's gauges fresh: a sibling may be the one that is asked for them."""
    while True:
        health.look_at_process(services)
        await asyncio.sleep(_VITALS_SECONDS)


def _include_pages(app: FastAPI) -> None:
    """The browser's pages and their files."""
    app.mount("/static", GZipMiddleware(Assets(), minimum_size=1_000, compresslevel=6))
    app.include_router(pages.router)
    app.include_router(batch_pages.router)
    app.include_router(webhook_pages.router)
    app.state.problem_page = pages.problem_page
