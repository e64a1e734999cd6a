"""Events: numbered without gaps, replayed and followed live."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError

from app.core.unit import Services
from app.jobs import events
from app.jobs.tables import Job
from tests.api.seeds import add_job, add_model

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def job(services: Services, owner_secret: str) -> str:
    return add_job(services, add_model(services))


def _append(services: Services, job: str, kind: Any = "progress", **data: Any) -> None:
    with services.sessions.begin() as session:
        events.append(session, job, kind, "finetune", "…", data, datetime.now(UTC))
    services.publisher.wake(job)


def _end(services: Services, job: str) -> None:
    with services.sessions.begin() as session:
        session.get_one(Job, job).status = "succeeded"
        events.append(session, job, "done", None, "…", {"status": "succeeded"}, datetime.now(UTC))
    services.publisher.wake(job)


def _frames(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    frame: dict[str, Any] = {}
    for line in lines:
        if not line:
            if "data" in frame:
                yield frame | {"data": json.loads(frame["data"])}
            frame = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value


def test_concurrent_writers_leave_no_gap_and_no_double(services: Services, job: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _append(services, job), range(40)))
    with services.sessions() as session:
        assert [event.seq for event in events.after(session, job, 0, 100)] == list(range(1, 41))


def test_a_job_has_no_second_done(services: Services, job: str) -> None:
    _end(services, job)
    with pytest.raises(IntegrityError):
        _append(services, job, "done")


def test_the_list_goes_on_after_an_id_or_a_number(client: TestClient, services: Services, job: str) -> None:
    for _ in range(5):
        _append(services, job)
    path = f"/v1/jobs/{job}/events"
    first = client.get(path, params={"limit": 2}).json()
    assert [event["seq"] for event in first["data"]] == [1, 2]
    assert first["has_more"] is True
    for after in (first["last_id"], "2"):
        rest = client.get(path, params={"after": after}).json()
        assert [event["seq"] for event in rest["data"]] == [3, 4, 5]
    newest = client.get(path, params={"order": "desc", "limit": 1}).json()
    assert [event["seq"] for event in newest["data"]] == [5]
    assert client.get(path, params={"after": "event_nonsense"}).status_code == 422


def test_a_stream_replays_then_follows_and_ends_after_done(
    live: httpx2.Client, services: Services, job: str
) -> None:
    _append(services, job, n=1)
    with live.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = _frames(answer.iter_lines())
        replayed = next(frames)
        assert (replayed["event"], replayed["id"], replayed["data"]["data"]) == ("progress", "1", {"n": 1})
        _append(services, job, "metric", n=2)
        assert next(frames)["data"]["data"] == {"n": 2}
        _end(services, job)
        assert next(frames)["event"] == "done"
        assert list(frames) == []


def test_a_stream_goes_on_after_the_last_event_seen(
    live: httpx2.Client, services: Services, job: str
) -> None:
    for n in range(4):
        _append(services, job, n=n)
    _end(services, job)
    ids = [event["id"] for event in live.get(f"/v1/jobs/{job}/events").json()["data"]]
    for last in ("2", ids[1]):
        with live.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM | {"Last-Event-ID": last}) as answer:
            assert [frame["id"] for frame in _frames(answer.iter_lines())] == ["3", "4", "5"]


def test_a_stream_that_was_read_to_its_end_is_204(live: httpx2.Client, services: Services, job: str) -> None:
    _end(services, job)
    answer = live.get(f"/v1/jobs/{job}/events", headers=STREAM | {"Last-Event-ID": "1"})
    assert answer.status_code == 204


def test_no_event_is_lost_without_the_bus(live: httpx2.Client, services: Services, job: str) -> None:
    with live.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        frames = _frames(answer.iter_lines())
        _append(replace(services, publisher=_Silent()), job, n=1)  # type: ignore[arg-type]
        assert next(frames)["data"]["data"] == {"n": 1}
        _end(services, job)
        assert [frame["event"] for frame in frames] == ["done"]


class _Silent:
    """A publisher whose rings are all lost."""

    def wake(self, job_id: str) -> None:
        return


def test_every_event_reaches_every_stream_in_order(live: httpx2.Client, services: Services, job: str) -> None:
    def follow(_: int) -> list[int]:
        with live.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
            return [int(frame["id"]) for frame in _frames(answer.iter_lines())]

    with ThreadPoolExecutor(6) as pool:
        seen = [pool.submit(follow, n) for n in range(6)]
        for n in range(30):
            _append(services, job, n=n)
        _end(services, job)
        for result in seen:
            assert result.result() == list(range(1, 32))


def test_a_waiting_stream_holds_no_database_connection(
    live: httpx2.Client, services: Services, job: str
) -> None:
    with live.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        free = threading.Event()
        for _ in range(50):  # it looks every two seconds, for milliseconds
            if services.engine.pool.checkedout() == 0:  # type: ignore[attr-defined]
                free.set()
                break
            time.sleep(0.02)
        assert free.is_set()
        _end(services, job)
        assert "event: done" in list(lines)


def test_the_events_of_a_job_that_is_not_yours_do_not_exist(other_owner: TestClient, job: str) -> None:
    assert other_owner.get(f"/v1/jobs/{job}/events").status_code == 404
    assert other_owner.get(f"/v1/jobs/{job}/events", headers=STREAM).status_code == 404


def test_a_stream_ends_when_its_time_is_up(
    live: httpx2.Client, app: Any, services: Services, job: str
) -> None:
    short = services.settings.model_copy(update={"sse_seconds": 1.0})
    app.state.services = replace(services, settings=short)
    with live.stream("GET", f"/v1/jobs/{job}/events", headers=STREAM) as answer:
        assert [line for line in answer.iter_lines() if line.startswith("event")] == []
