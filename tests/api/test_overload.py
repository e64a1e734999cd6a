"""Above so many requests at work new ones are refused at once; what must go on goes on."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from sqlalchemy import text

from app.core.settings import Settings
from app.core.unit import Services
from tests.api.seeds import add_job, add_model

MOST = 3


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_requests_at_work": MOST})


@contextmanager
def _busy(live: httpx2.Client, services: Services) -> Iterator[list[Future[httpx2.Response]]]:
    """As many requests at work as may be, until the block ends: the table that they read is locked."""
    with ThreadPoolExecutor(MOST) as pool, services.engine.begin() as connection:
        connection.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        waiting = [pool.submit(live.get, "/v1/jobs") for _ in range(MOST)]
        _until_waiting(services, MOST)
        yield waiting


def _until_waiting(services: Services, number: int) -> None:
    deadline = time.monotonic() + 20
    lists = "query LIKE '%ORDER BY jobs.id DESC%'"  # the reaper waits there as well
    query = text(f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND {lists}")
    while time.monotonic() < deadline:
        with services.engine.connect() as connection:
            if (connection.scalar(query) or 0) >= number:
                return
        time.sleep(0.02)
    raise AssertionError("The requests did not come to the lock.")


def test_one_too_many_is_refused_at_once_and_the_others_are_answered(
    live: httpx2.Client, services: Services
) -> None:
    with _busy(live, services) as waiting:
        refused = live.get("/v1/models")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["limit"] == MOST
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert not any(one.done() for one in waiting)
    assert {one.result().status_code for one in waiting} == {200}
    assert live.get("/v1/models").status_code == 200


def test_health_static_files_and_uploads_are_answered_however_busy(
    live: httpx2.Client, services: Services
) -> None:
    with _busy(live, services):
        assert live.get("/livez").status_code == 200
        assert live.get("/static/css/base.css").status_code != 503
        assert live.post("/v1/models", files={"file": b"no network"}).status_code == 422


def test_an_open_event_stream_takes_no_turn(live: httpx2.Client, services: Services) -> None:
    job = add_job(services, add_model(services))
    accept = {"Accept": "text/event-stream"}
    streams = [live.stream("GET", f"/v1/jobs/{job}/events", headers=accept) for _ in range(MOST + 2)]
    opened = [stream.__enter__() for stream in streams]
    try:
        assert {stream.status_code for stream in opened} == {200}
        assert live.get("/v1/jobs").status_code == 200
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
