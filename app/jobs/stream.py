"""A job's events as they happen: rows after the last one seen, then a wait for the bus, then rows again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.core.unit import Services
from app.jobs import events, repository
from app.jobs.schemas import EventOut, show_event

_BATCH: Final = 200
_POLL_SECONDS: Final = 2.0  # what a lost ring costs
_KEEPALIVE_SECONDS: Final = 15.0  # proxies close silent connections, and a gone client shows at a write
_RETRY_MILLISECONDS: Final = 2000

log = structlog.get_logger()


@dataclass(frozen=True)
class _Look:
    events: Sequence[EventOut]
    over: bool  # the job has ended, or is gone


async def follow(services: Services, job_id: str, seq: int) -> AsyncIterator[bytes]:
    """Server-sent events after number `seq`; ends after `done`, or after `settings.sse_seconds`."""
    deadline = time.monotonic() + services.settings.sse_seconds
    services.metrics.streams_opened.inc()
    async with services.listener.watch(job_id) as bell, _counted(services):
        yield format_sse_event(retry=_RETRY_MILLISECONDS)
        written = time.monotonic()
        while (left := deadline - time.monotonic()) > 0:
            bell.clear()  # before the look: a ring during it must not be lost
            try:
                look = await run_in_threadpool(_look, services, job_id, seq)
            except SQLAlchemyError as error:
                log.warning("stream.lost", job_id=job_id, error=str(error).partition("\n")[0])
                return  # the client comes back with Last-Event-ID
            for event in look.events:
                yield _frame(event)
                seq, written = event.seq, time.monotonic()
                if event.type == "done":
                    return
            if look.over and not look.events:
                return
            if time.monotonic() - written > _KEEPALIVE_SECONDS:
                yield KEEPALIVE_COMMENT
                written = time.monotonic()
            if len(look.events) < _BATCH:
                await _wait(bell, min(_POLL_SECONDS, left))


@contextlib.asynccontextmanager
async def _counted(services: Services) -> AsyncIterator[None]:
    services.metrics.streams_open.inc()
    try:
        yield
    finally:
        services.metrics.streams_open.dec()


def _look(services: Services, job_id: str, seq: int) -> _Look:
    """A short session, closed before anything is sent. The status is read first: what ended with it
    is then among the events."""
    with services.single_statements() as session:
        ended = repository.has_ended(session, job_id)
        rows = events.after(session, job_id, seq, _BATCH)
        return _Look([show_event(row) for row in rows], over=ended is not False)


async def _wait(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return


def _frame(event: EventOut) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
