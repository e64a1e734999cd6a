"""`/metrics`: who may see it, and that each figure says what it is called."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from app.core.board import Board
from app.core.metrics import WorkMetrics
from app.core.settings import Settings
from app.core.unit import Services
from app.main import build_services, create_app
from tests.api.conftest import HandClock
from tests.api.seeds import add_dataset, add_job, add_model
from worker.telemetry import GpuCollector, visible_gpus

HAS_GPU = Path("/dev/nvidiactl").exists()
TOKEN = "a-token-for-the-scraper"


def value(text: str, name: str, **labels: str) -> float | None:
    """The one sample of this name whose labels include these."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) < 2, f"{name} {labels} is told {len(found)} times"
    return found[0] if found else None


def test_a_stranger_may_not_see_them_and_a_key_that_only_writes_neither(
    app: FastAPI, stranger: TestClient, new_key: Callable[..., str]
) -> None:
    assert stranger.get("/metrics").status_code == 401
    assert stranger.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 401
    writer = {"Authorization": f"Bearer {new_key(scopes=['write'])}"}
    assert stranger.get("/metrics", headers=writer).status_code == 403
    reader = {"Authorization": f"Bearer {new_key(scopes=['read'])}"}
    assert stranger.get("/metrics", headers=reader).status_code == 200


def test_the_scrapers_token_opens_them_alone_and_while_the_database_is_away(settings: Settings) -> None:
    lost = settings.model_copy(
        update={
            "database_url": SecretStr("postgresql+psycopg://x:y@127.0.0.1:1/none"),
            "metrics_token": SecretStr(TOKEN),
        }
    )
    client = TestClient(create_app(lost, build_services(lost)), raise_server_exceptions=False)
    token = {"Authorization": f"Bearer {TOKEN}"}
    answer = client.get("/metrics", headers=token)
    assert answer.status_code == 200
    assert value(answer.text, "basisconv_up", check="database") == 0
    assert value(answer.text, "basisconv_up", check="broker") == 1
    assert client.get("/v1/models", headers=token).status_code == 503
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    assert client.get("/metrics", headers=wrong).status_code == 503  # an API key? nobody can look it up


def test_requests_are_counted_by_route_and_invented_methods_make_no_series(client: TestClient) -> None:
    for _ in range(3):
        client.get("/v1/models/model_a")
    client.get("/nowhere/at/all")
    client.get("/static/css/base.css")
    client.request("INVENTED", "/v1/models")
    text = client.get("/metrics").text
    route = {"method": "GET", "route": "/v1/models/{model_id}"}
    assert value(text, "basisconv_http_requests_total", **route, status="404") == 3
    assert value(text, "basisconv_http_request_seconds_count", **route) == 3
    assert value(text, "basisconv_http_requests_total", route="unmatched", method="GET", status="404") == 1
    assert value(text, "basisconv_http_requests_total", method="other") == 1
    assert "INVENTED" not in text
    assert "model_a" not in text
    assert "base.css" not in text
    assert value(text, "basisconv_http_requests_in_progress") == 1  # the one that asks


def test_what_waits_and_how_long_already(client: TestClient, services: Services, clock: HandClock) -> None:
    model = add_model(services)
    hour_ago = clock.now() - timedelta(hours=1)
    add_job(services, model, status="queued", created_at=hour_ago)
    add_job(services, model, status="queued")
    add_job(services, model, status="succeeded", created_at=hour_ago - timedelta(days=1))
    add_dataset(services, status="inspecting", created_at=clock.now() - timedelta(minutes=1))
    add_model(services, status="inspecting", lease_owner="w", lease_expires_at=clock.now(), attempt=1)
    text = client.get("/metrics").text
    assert value(text, "basisconv_queue_length", queue="jobs", work="job") == 2
    assert value(text, "basisconv_queue_oldest_seconds", work="job") == pytest.approx(3600, abs=5)
    assert value(text, "basisconv_queue_length", queue="quick", work="dataset") == 1
    assert value(text, "basisconv_queue_oldest_seconds", work="dataset") == pytest.approx(60, abs=5)
    assert value(text, "basisconv_queue_length", work="model") == 0  # somebody has it
    assert value(text, "basisconv_queue_oldest_seconds", work="model") == 0
    assert value(text, "basisconv_jobs", status="queued") == 2
    assert (
        value(text, "basisconv_jobs", status="succeeded") is None
    )  # basisconv_jobs_ended_total counts those


def test_the_process_tells_its_connections_threads_memory_and_disks(
    client: TestClient, services: Services
) -> None:
    with services.engine.connect():
        text = client.get("/metrics").text
    assert value(text, "basisconv_database_connections", state="in_use") == 1
    assert value(text, "basisconv_database_connections_most") == 20
    assert (value(text, "basisconv_resident_bytes") or 0) > 1e7
    assert value(text, "basisconv_threads_most") == 40
    assert (value(text, "basisconv_disk_free_bytes", folder="var") or 0) > 0
    assert (value(text, "basisconv_database_bytes") or 0) > 1e6


def test_what_alerts_count_is_told_before_it_happens(client: TestClient) -> None:
    """A counter that appears with its first event seems not to have grown by it."""
    text = client.get("/metrics").text
    assert value(text, "basisconv_leases_expired_total", work="job") == 0
    assert value(text, "basisconv_attempts_lost_total", work="plan", cause="silence") == 0
    assert value(text, "basisconv_rings_failed_total", task="worker.run_job") == 0


def test_a_cancelled_job_is_counted_as_an_outcome(client: TestClient, services: Services) -> None:
    job = add_job(services, add_model(services), status="queued")
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    text = client.get("/metrics").text
    assert value(text, "basisconv_jobs_ended_total", status="cancelled") == 1


def test_open_streams_are_told_and_closed_ones_are_not(live: httpx2.Client, services: Services) -> None:
    job = add_job(services, add_model(services))
    stream = {"Accept": "text/event-stream"}
    with live.stream("GET", f"/v1/jobs/{job}/events", headers=stream) as answer:
        lines = answer.iter_lines()  # held: the answer is closed with it
        next(lines)
        assert value(live.get("/metrics").text, "basisconv_event_streams") == 1
    for _ in range(100):
        text = live.get("/metrics").text
        if value(text, "basisconv_event_streams") == 0:
            break
        time.sleep(0.1)
    assert value(text, "basisconv_event_streams") == 0
    assert value(text, "basisconv_event_streams_opened_total") == 1
    events = {"route": "/v1/jobs/{job_id}/events"}
    assert value(text, "basisconv_http_requests_total", **events) == 1
    assert value(text, "basisconv_http_request_seconds_count", **events) is None  # no measure of speed


def test_workers_figures_stand_beside_the_webs_with_their_names(
    client: TestClient, services: Services, settings: Settings
) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    board = Board(settings.broker_url.get_secret_value())
    for name, ended in (("jobs1@a", 2), ("jobs1@b", 3)):
        registry = CollectorRegistry()
        work = WorkMetrics(registry)
        work.jobs_ended.labels("succeeded", "").inc(ended)
        work.stage_seconds.labels("finetune").observe(100)
        board.write(name, generate_latest(registry))
    board.close()
    services.metrics.work.jobs_ended.labels("cancelled", "").inc()
    text = client.get("/metrics").text
    assert value(text, "basisconv_jobs_ended_total", worker="jobs1@a") == 2
    assert value(text, "basisconv_jobs_ended_total", worker="jobs1@b") == 3
    assert value(text, "basisconv_jobs_ended_total", status="cancelled") == 1
    assert value(text, "basisconv_stage_seconds_bucket", worker="jobs1@a", le="120.0") == 1
    assert (value(text, "basisconv_worker_seen_seconds_ago", worker="jobs1@b") or 99) < 30
    assert text.count("# TYPE basisconv_jobs_ended_total ") == 1  # the format allows one


def test_a_broker_that_is_away_costs_the_workers_figures_only(settings: Settings, owner_secret: str) -> None:
    lost = settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})
    app = create_app(lost, build_services(lost))
    client = TestClient(app, headers={"Authorization": f"Bearer {owner_secret}"})
    text = client.get("/metrics").text
    assert value(text, "basisconv_up", check="broker") == 0
    assert value(text, "basisconv_jobs", status="queued") == 0


def test_without_a_gpu_there_are_no_gpu_figures() -> None:
    if HAS_GPU:
        pytest.skip("this machine has one")
    assert list(GpuCollector().collect()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="this machine has no NVIDIA device")
def test_a_gpus_memory_is_told() -> None:
    used, total = GpuCollector().collect()
    assert 0 < used.samples[0].value <= total.samples[0].value


@pytest.mark.parametrize(
    ("variable", "left"),
    [(None, [0, 1, 2]), ("1", [1]), ("2, 0", [2, 0]), ("", []), ("7", []), ("GPU-1f3a", [0, 1, 2])],
)
def test_a_worker_tells_the_gpus_that_it_may_use(variable: str | None, left: list[int]) -> None:
    assert visible_gpus(3, variable) == left


def test_ages_are_never_negative(client: TestClient, services: Services) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=5)  # another machine's clock
    add_job(services, add_model(services), status="queued", created_at=ahead)
    assert value(client.get("/metrics").text, "basisconv_queue_oldest_seconds", work="job") == 0
