"""What becomes a batch: a list, a grid or a file of jobs, looked at as a whole before anything runs."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.core.settings import Settings
from app.core.unit import Services
from app.jobs.tables import JobEvent
from app.main import build_services, create_app
from tests.api.conftest import HandClock, _client
from tests.api.seeds import add_model
from tests.api.sent_batches import body, jobs_of, post


def jsonl(*bodies: Any) -> bytes:
    return b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in bodies)


def messages(settings: Settings) -> int:
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as broker:
        return int(broker.llen("jobs"))


def test_a_batch_is_its_jobs_in_their_order(client: TestClient, services: Services) -> None:
    model = add_model(services)
    batch = post(client, [body(model, name=f"number {i}") for i in range(5)], name="five")
    assert (batch["object"], batch["name"], batch["status"]) == ("batch", "five", "running")
    assert batch["counts"] == {
        "total": 5, "queued": 5, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "invalid": 0,
    }  # fmt: skip
    assert client.get(f"/v1/batches/{batch['id']}").json() == batch
    assert client.get("/v1/batches").json()["data"] == [batch]
    jobs = jobs_of(client, batch["id"])
    assert [job["name"] for job in jobs] == [f"number {i}" for i in range(5)]
    assert {job["batch"] for job in jobs} == {batch["id"]}
    alone = client.post("/v1/jobs", json=body(model)).json()
    for job in (jobs[0], alone):
        (first,) = client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
        assert (first["seq"], first["type"], first["message"]) == (1, "progress", "Waiting for a worker")
    assert {name: jobs[0][name] for name in ("compression", "training", "exports", "progress")} == {
        name: alone[name] for name in ("compression", "training", "exports", "progress")
    }


def test_thousands_of_jobs_ring_a_few_times(
    client: TestClient, services: Services, settings: Settings
) -> None:
    model = add_model(services)
    batch = post(client, [body(model) for _ in range(2000)])
    assert batch["counts"]["queued"] == 2000
    assert 0 < messages(settings) <= 20
    with services.sessions() as session:
        assert session.scalar(select(func.count()).select_from(JobEvent)) == 2000


def test_a_grid_is_every_network_with_every_combination(client: TestClient, services: Services) -> None:
    models = [add_model(services), add_model(services)]
    grid = {"compression.target.macs": [0.3, 0.5], "compression": {"basis": ["weights", "activations"]}}
    sent = {"models": models, "grid": grid, "base": {"exports": ["onnx"]}}
    answer = client.post("/v1/batches", json=sent)
    assert answer.status_code == 201, answer.text
    asked = [
        (job["model"], job["compression"]["target"]["macs"], job["compression"]["basis"], job["exports"])
        for job in jobs_of(client, answer.json()["id"])
    ]
    assert asked == [
        (model, macs, basis, ["onnx"])
        for model in models
        for macs in (0.3, 0.5)
        for basis in ("weights", "activations")
    ]


@pytest.mark.parametrize(
    ("changed", "pointer", "words"),
    [
        ({"grid": {"compression.target.macs": 0.5}}, "#/grid/compression.target.macs", "at least one value"),
        ({"grid": {"compression": {"target": {"macs": []}}}}, "#/grid/compression/target/macs", "one value"),
        (
            {"grid": {"compression.target": [{"macs": 0.5}], "compression.target.macs": [0.5]}},
            "#/grid",
            "varies `compression.target`",
        ),
        ({"jobs": []}, "#", "either `jobs` or `models`"),
        ({"colour": "red"}, "#/colour", "Extra inputs"),
    ],
)
def test_what_is_wrong_with_a_grid_is_told_at_its_place(
    client: TestClient, services: Services, changed: dict[str, Any], pointer: str, words: str
) -> None:
    sent = {"models": [add_model(services)], "base": body("x")} | changed
    answer = client.post("/v1/batches", json=sent)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert words in answer.json()["detail"]


def test_a_wrong_combination_is_named(client: TestClient, services: Services) -> None:
    model = add_model(services)
    sent = {"models": [model], "grid": {"compression.target.macs": [0.5, 2]}, "base": {"compression": {}}}
    problem = client.post("/v1/batches", json=sent).json()
    (error,) = problem["errors"]
    assert (error["line"], error["pointer"]) == (2, "#/compression/target/macs")
    assert f"model {model}, compression.target.macs 2" in error["detail"]


def test_one_broken_line_and_nothing_runs_unless_it_may_be_skipped(
    client: TestClient, services: Services, settings: Settings
) -> None:
    model = add_model(services)
    waiting = add_model(services, status="inspecting")
    lines = jsonl(
        body(model),
        b"",
        b'{"kind": "compress", ',
        body(model, compression={"target": {"macs": 2}}),
        body("model_" + "0" * 26),
        body(waiting),
        body(model, compression={"target": {"macs": 0.5}, "layers": {"exclude": ["nothing"]}}),
        body(model, dataset="dataset_" + "0" * 26),
        [1],
        b"\xff\xfe",
        body(model),
    )
    headers = {"Content-Type": "application/jsonl"}
    refused = client.post("/v1/batches", content=lines, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    problem = refused.json()
    assert problem["detail"].startswith("8 of 10 jobs are not valid, and none was started. Line 3: ")
    assert "skip" in problem["hint"]
    told = [(error["line"], error["code"], error["pointer"]) for error in problem["errors"]]
    assert told == [
        (3, "malformed_request", "#"),
        (4, "validation_failed", "#/compression/target/macs"),
        (5, "not_found", "#"),
        (6, "invalid_state", "#"),
        (7, "validation_failed", "#/compression/layers/exclude/0"),
        (8, "not_found", "#"),
        (9, "validation_failed", "#"),
        (10, "malformed_request", "#"),
    ]
    assert "at character" in problem["errors"][0]["detail"]
    assert problem["invalid"] == 8
    assert client.get("/v1/jobs").json()["data"] == []
    assert client.get("/v1/batches").json()["data"] == []
    assert messages(settings) == 0

    made = client.post("/v1/batches?on_error=skip&name=rest", content=lines, headers=headers).json()
    assert (made["name"], made["status"], made["on_error"]) == ("rest", "running", "skip")
    assert made["counts"]["total"] == 10
    assert (made["counts"]["queued"], made["counts"]["invalid"]) == (2, 8)
    assert [error["line"] for error in made["errors"]] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert len(jobs_of(client, made["id"])) == 2


def test_errors_in_a_list_of_jobs_point_into_the_body(client: TestClient, services: Services) -> None:
    jobs = [body(add_model(services)), body("nothing"), body("x", compression={"target": {}})]
    errors = client.post("/v1/batches", json={"jobs": jobs}).json()["errors"]
    assert [(error["line"], error["pointer"]) for error in errors] == [
        (2, "#/jobs/1"),
        (3, "#/jobs/2/compression/target"),
    ]


@pytest.mark.parametrize("on_error", ["abort", "skip"])
def test_a_batch_of_broken_lines_alone_is_refused(client: TestClient, on_error: str) -> None:
    answer = client.post("/v1/batches", json={"jobs": [{}, {}], "on_error": on_error})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 2)
    assert "skip" not in answer.json()["hint"]


def test_a_file_can_be_sent_in_a_form(client: TestClient, services: Services) -> None:
    lines = b"\xef\xbb\xbf" + jsonl(body(add_model(services)), {}).replace(b"\n", b"\r\n") + b"\r\n"
    files = {"file": ("jobs.jsonl", lines, "application/jsonl")}
    refused = client.post("/v1/batches", files=files)
    assert (refused.status_code, refused.json()["errors"][0]["line"]) == (422, 2)
    made = client.post("/v1/batches", files=files, data={"on_error": "skip", "name": "form"})
    assert made.status_code == 201, made.text
    assert (made.json()["name"], made.json()["counts"]["queued"]) == ("form", 1)
    wrong = client.post("/v1/batches", files=files, data={"on_error": "perhaps"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "#/on_error")


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "application/json", 400, "malformed_request"),
        (b"[1]", "application/json", 422, "validation_failed"),
        (b"[" * 100_000, "application/json", 400, "malformed_request"),
        (b"\n\n", "application/jsonl", 422, "validation_failed"),
        (b"[" * 100_000, "application/jsonl", 422, "validation_failed"),
        (b'{"a": "\\ud800", "\\u0000": NaN}', "application/jsonl", 422, "validation_failed"),
        (b"<a/>", "text/xml", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 400, "malformed_request"),
        (b"1" * 9_000_000, "application/jsonl", 413, "upload_too_large"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(
    client: TestClient, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = client.post("/v1/batches", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:300]


def test_a_batch_has_a_largest_size(
    services: Services, settings: Settings, owner_secret: str, clock: HandClock
) -> None:
    small = build_services(settings.model_copy(update={"max_batch_jobs": 3}), clock=clock)
    client = _client(create_app(small.settings, small), owner_secret)
    model = add_model(services)
    grid = {"models": [model], "grid": {"training.seed": list(range(2000)), "training.epochs": [0] * 2000}}
    for sent in ({"jobs": [body(model)] * 4}, grid):
        answer = client.post("/v1/batches", json=sent)
        assert (answer.status_code, answer.json()["limit"]) == (422, 3)
    assert post(client, [body(model)] * 3)["counts"]["queued"] == 3
    small.publisher.close()
    small.engine.dispose()


def test_a_batch_counts_in_the_quota_as_a_whole(
    app: FastAPI, services: Services, new_key: Callable[..., str]
) -> None:
    client = _client(app, new_key(limits={"active_jobs": 3}))
    owner = client.get("/v1/usage").json()["owner"]
    model = add_model(services, owner)
    refused = client.post("/v1/batches", json={"jobs": [body(model)] * 4})
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert (refused.json()["needed"], refused.json()["limit"]) == (4, 3)
    assert client.get("/v1/jobs").json()["data"] == []
    post(client, [body(model)] * 3)
    assert client.get("/v1/usage").json()["active_jobs"]["used"] == 3


def test_the_same_key_gives_the_first_batch_again(client: TestClient, services: Services) -> None:
    model = add_model(services)
    headers = {"Idempotency-Key": "one"}
    first = client.post("/v1/batches", json={"jobs": [body(model)] * 2, "name": "a"}, headers=headers)
    reordered = b'{"name":"a", "jobs":' + json.dumps([body(model)] * 2).encode() + b"}"
    again = client.post(
        "/v1/batches", content=reordered, headers=headers | {"Content-Type": "application/json"}
    )
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post("/v1/batches", json={"jobs": [body(model)]}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert len(client.get("/v1/batches").json()["data"]) == 1
