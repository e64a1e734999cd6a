"""``/livez``, ``/readyz`` and ``/metrics``."""

from collections.abc import Callable
from typing import Literal

import structlog
from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy import text

from app.core.problems import raises
from app.core.security import OPEN, require
from app.core.unit import Services, ServicesOf

router = APIRouter(tags=["health"])
log = structlog.get_logger()
State = Literal["ok", "unavailable"]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether this process can serve, and which server behind it is away."""

    status: State
    database: State
    broker: State
    storage: State


@router.get("/livez", dependencies=[OPEN], responses=raises(common=()))
async def livez() -> Alive:
    """The process answers."""
    return Alive()


@router.get(
    "/readyz",
    dependencies=[OPEN],
    responses={503: {"model": Readiness, "description": "A server behind it is away."}},
)
def readyz(services: ServicesOf, response: Response) -> Readiness:
    """The servers behind the process answer. Without the broker, work is accepted and starts later."""
    states = {
        "database": _state("database", lambda: _ask_database(services)),
        "broker": _state("broker", services.publisher.ping),
        "storage": _state("storage", services.store.check),
    }
    overall: State = "ok" if set(states.values()) == {"ok"} else "unavailable"
    response.status_code = 200 if overall == "ok" else 503
    return Readiness(status=overall, **states)


def _ask_database(services: Services) -> None:
    with services.engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def _state(name: str, check: Callable[[], object]) -> State:
    try:
        check()
    except Exception as error:  # whatever goes wrong here, the answer is that it is not ready
        log.warning("readyz.failed", server=name, error=str(error).partition("\n")[0])
        return "unavailable"
    return "ok"


@router.get(
    "/metrics",
    dependencies=[Depends(require("read"))],
    response_class=Response,
    responses={**raises(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(services: ServicesOf) -> Response:
    """Prometheus' text format. Needs a key, as a job's numbers are nobody else's business."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)
