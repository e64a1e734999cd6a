"""Whatever goes wrong leaves as a problem with a request id."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.core.settings import Settings
from app.core.unit import Services
from app.main import build_services, create_app
from tests.api.conftest import _client


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/models/a/b/c"])
def test_an_unknown_address_is_a_problem(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_wrong_method_names_the_right_ones(client: TestClient) -> None:
    answer = client.patch("/livez")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


def test_a_body_that_is_not_json_is_told_where(client: TestClient) -> None:
    answer = client.post("/v1/jobs", content=b'{"kind": oops}', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "character 9" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"x"', b""])
def test_a_body_of_another_kind_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_deeply_nested_body_is_refused(client: TestClient) -> None:
    body = b'{"metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
def test_a_json_body_over_the_limit_is_refused(
    client: TestClient, settings: Settings, content_type: str
) -> None:
    body = b'{"kind":"' + b"x" * settings.max_json_bytes + b'"}'
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert answer.json()["limit"] == settings.max_json_bytes


def test_an_unexpected_error_tells_nothing_but_its_request_id(app: FastAPI, owner_secret: str) -> None:
    def crash() -> None:
        raise RuntimeError("a secret detail")

    app.add_api_route("/crash", crash)
    answer = _client(app, owner_secret).get("/crash")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret detail" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.fixture
def cut_off(settings: Settings) -> TestClient:
    """A service whose database and broker are away."""
    lost = settings.model_copy(
        update={
            "database_url": SecretStr("postgresql+psycopg://x:y@127.0.0.1:1/none"),
            "broker_url": SecretStr("redis://127.0.0.1:1/0"),
        }
    )
    return _client(create_app(lost, build_services(lost)), "bc_any")


def test_a_database_that_is_away_is_503(cut_off: TestClient) -> None:
    answer = cut_off.get("/v1/models")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]


def test_readyz_names_what_is_away_and_livez_does_not_care(cut_off: TestClient) -> None:
    ready = cut_off.get("/readyz")
    assert ready.status_code == 503
    told = ready.json()
    states = {name: told[name] for name in ("status", "database", "migrations", "broker", "storage", "disk")}
    assert states == {
        "status": "unavailable",
        "database": "unavailable",
        "migrations": "unknown",
        "broker": "unavailable",
        "storage": "ok",
        "disk": "ok",
    }
    assert [trouble["check"] for trouble in told["troubles"]] == ["database", "broker"]
    assert "127.0.0.1" not in ready.text  # anybody may ask
    assert cut_off.get("/livez").json() == {"status": "ok"}


def test_readyz_is_200_when_everything_answers(stranger: TestClient) -> None:
    answer = stranger.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_metrics_need_a_key_and_count_routes_not_addresses(client: TestClient, stranger: TestClient) -> None:
    assert stranger.get("/metrics").status_code == 401
    client.get("/v1/models/model_a")
    text = client.get("/metrics").text
    assert (
        'basisconv_http_requests_total{method="GET",route="/v1/models/{model_id}",status="404"} 1.0' in text
    )
    assert 'basisconv_jobs{status="queued"} 0.0' in text
    assert "model_a" not in text


def test_a_ring_that_fails_is_no_error_for_the_user(
    services: Services, settings: Settings, owner_secret: str
) -> None:
    from app.core.queue import CeleryDoorbell
    from app.models.tables import Model
    from tests.api.seeds import onnx_bytes

    deaf = replace(services, doorbell=CeleryDoorbell("redis://127.0.0.1:1/0"))
    client = _client(create_app(settings, deaf), owner_secret)
    answer = client.post("/v1/models", files={"file": ("a.onnx", onnx_bytes())})
    assert answer.status_code == 201
    with services.sessions() as session:
        assert session.get_one(Model, answer.json()["id"]).rung_at is None  # the reaper rings at once
    assert 'basisconv_rings_failed_total{task="worker.inspect_model"} 1.0' in client.get("/metrics").text


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/livez", "/v1/models", "/docs", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src" in headers["content-security-policy"]
    assert client.get("/v1/models").headers["cache-control"] == "no-store"


def test_more_requests_at_once_than_threads_and_connections_all_come_through(
    live: httpx2.Client, services: Services
) -> None:
    """A request that holds a connection must never wait for a thread that waits for a connection."""
    from tests.api.seeds import add_job, add_model

    job = add_job(services, add_model(services))
    with ExitStack() as stack:
        for _ in range(17):  # of 20, so that requests and the reaper share three
            stack.enter_context(services.engine.connect())
        pool = stack.enter_context(ThreadPoolExecutor(100))  # for 40 threads; a deadlock ends with a 503
        found = pool.map(lambda _: live.get(f"/v1/jobs/{job}", timeout=120).status_code, range(120))
        assert set(found) == {200}
