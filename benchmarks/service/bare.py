"""The least that could answer: what uvicorn, Starlette and Celery take by themselves on this machine."""

import os
import time

import redis
from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.core.events import redis_url

BODY = {"id": "job_" + "0" * 26, "object": "job", "status": "queued", "progress": {"fraction": 0.0}}


async def answer(_: Request) -> JSONResponse:
    return JSONResponse(BODY)


app = Starlette(routes=[Route("/bare", answer)])

_BROKER = os.environ.get("BENCH_BROKER", "redis://127.0.0.1:1/0")
STARTED = "bench:started"
celery = Celery("bare", broker=_BROKER, set_as_current=False)
celery.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 60},
    broker_connection_retry_on_startup=True,
)
_client = redis.Redis.from_url(redis_url(_BROKER))


@celery.task(name="bare.start")  # type: ignore[untyped-decorator]
def start(number: int) -> None:
    _client.hset(STARTED, str(number), str(time.time()))
