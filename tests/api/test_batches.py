"""Batches: looked at as a whole before anything runs, counted, cancelled, collected, deleted."""

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.batches.retention import expire_batches
from app.batches.tables import Batch
from app.core.errors import Internal
from app.core.settings import Settings
from app.core.unit import Services
from app.jobs import leases
from app.jobs.leases import Lease
from app.jobs.tables import Job, JobEvent
from app.main import build_services, create_app
from tests.api.conftest import HandClock, _client
from tests.api.seeds import RESULT, add_artifact, add_dataset, add_job, add_model


def body(model: str, **changed: Any) -> dict[str, Any]:
    return {"kind": "compress", "model": model, "compression": {"target": {"macs": 0.6}}} | changed


def post(client: TestClient, jobs: Iterable[Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/batches", json={"jobs": list(jobs)} | more)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def jsonl(*bodies: Any) -> bytes:
    return b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in bodies)


def messages(settings: Settings) -> int:
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as broker:
        return int(broker.llen("jobs"))


def end(services: Services, job_id: str, how: str = "succeeded") -> None:
    """As a worker would: claim, then end."""
    now, lease = services.clock.now(), Lease(f"worker of {job_id}", 60)
    with services.sessions.begin() as session:
        assert leases.claim_job(session, job_id, lease, now) is not None
    with services.sessions.begin() as session:
        if how == "succeeded":
            assert leases.succeed_job(session, job_id, lease.owner, RESULT, now)
        else:
            assert leases.fail_job(session, job_id, lease.owner, Internal("no").document(), now)


def jobs_of(client: TestClient, batch: str) -> list[dict[str, Any]]:
    listed = client.get("/v1/jobs", params={"batch": batch, "order": "asc", "limit": 100})
    found: list[dict[str, Any]] = listed.json()["data"]
    return found


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


def test_a_batch_ends_with_its_last_job(client: TestClient, services: Services) -> None:
    batch = post(client, [body(add_model(services))] * 3)
    jobs = [job["id"] for job in jobs_of(client, batch["id"])]
    end(services, jobs[0])
    end(services, jobs[1], "failed")
    found = client.get(f"/v1/batches/{batch['id']}").json()
    assert (found["status"], found["finished_at"]) == ("running", None)
    client.post(f"/v1/jobs/{jobs[2]}/cancel")
    found = client.get(f"/v1/batches/{batch['id']}").json()
    assert found["status"] == "completed"
    assert found["finished_at"] is not None
    assert [found["counts"][name] for name in ("succeeded", "failed", "cancelled")] == [1, 1, 1]


def test_two_last_jobs_that_end_at_once_end_the_batch_once(client: TestClient, services: Services) -> None:
    batch = post(client, [body(add_model(services))] * 2)["id"]
    jobs = [job["id"] for job in jobs_of(client, batch)]
    now, both = services.clock.now(), Barrier(2)
    with services.sessions.begin() as session:
        for job_id in jobs:
            leases.claim_job(session, job_id, Lease(job_id, 60), now)

    def work(job_id: str) -> None:
        with services.sessions.begin() as session:
            session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
            both.wait(10)
            assert leases.succeed_job(session, job_id, job_id, RESULT, now)

    threads = [Thread(target=work, args=(job_id,)) for job_id in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert client.get(f"/v1/batches/{batch}").json()["status"] == "completed"


def test_cancelling_stops_what_waits_at_once_and_what_runs_through_its_worker(
    client: TestClient, services: Services
) -> None:
    batch = post(client, [body(add_model(services))] * 4)["id"]
    done, running, *waiting = [job["id"] for job in jobs_of(client, batch)]
    end(services, done)
    with services.sessions.begin() as session:
        leases.claim_job(session, running, Lease("w", 60), services.clock.now())
    answer = client.post(f"/v1/batches/{batch}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")
    counts = answer.json()["counts"]
    assert (counts["queued"], counts["running"], counts["cancelled"], counts["succeeded"]) == (0, 1, 2, 1)
    for job_id in waiting:
        events = client.get(f"/v1/jobs/{job_id}/events").json()["data"]
        assert [(event["seq"], event["type"]) for event in events] == [(1, "progress"), (2, "done")]
        assert events[-1]["data"] == {"status": "cancelled"}
    assert client.get(f"/v1/jobs/{running}").json()["status"] == "cancelling"
    assert client.post(f"/v1/batches/{batch}/cancel").json()["status"] == "cancelling"
    with services.sessions.begin() as session:
        assert leases.cancel_job(session, running, "w", services.clock.now())
    assert client.get(f"/v1/batches/{batch}").json()["status"] == "cancelled"
    assert client.post(f"/v1/batches/{batch}/cancel").json()["status"] == "cancelled"


def test_a_completed_batch_cannot_be_cancelled(client: TestClient, services: Services) -> None:
    batch = post(client, [body(add_model(services))])["id"]
    end(services, jobs_of(client, batch)[0]["id"])
    answer = client.post(f"/v1/batches/{batch}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    assert client.get(f"/v1/batches/{batch}").json()["status"] == "completed"


def test_results_are_a_line_for_every_job_that_has_ended(client: TestClient, services: Services) -> None:
    model = add_model(services)
    lines = [body(model, name="first"), {}, body(model, name="second"), body(model, name="third")]
    batch = post(client, lines, on_error="skip")["id"]
    first, second, _ = [job["id"] for job in jobs_of(client, batch)]
    end(services, second)
    end(services, first, "failed")
    answer = client.get(f"/v1/batches/{batch}/results")
    assert answer.headers["content-type"] == "application/jsonl"
    assert batch in answer.headers["content-disposition"]
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["line"], line["status"]) for line in found] == [
        (1, "failed"),
        (3, "succeeded"),
        (2, "invalid"),
    ]
    assert found[1] == {"line": 3} | client.get(f"/v1/jobs/{second}").json()
    assert found[2]["error"]["code"] == "validation_failed"


def test_results_of_many_jobs_come_in_pages_and_miss_none(client: TestClient, services: Services) -> None:
    batch = post(client, [body(add_model(services))] * 450)["id"]
    with services.sessions.begin() as session:
        session.execute(update(Job).values(status="failed"))
    found = [json.loads(line) for line in client.get(f"/v1/batches/{batch}/results").text.splitlines()]
    assert [line["line"] for line in found] == list(range(1, 451))


def test_an_ended_batch_is_deleted_with_all_that_it_made(client: TestClient, services: Services) -> None:
    model = add_model(services)
    batch = post(client, [body(model, dataset=add_dataset(services))] * 2)["id"]
    running = client.delete(f"/v1/batches/{batch}")
    assert (running.status_code, running.json()["code"]) == (409, "invalid_state")
    jobs = [job["id"] for job in jobs_of(client, batch)]
    for job_id in jobs:
        end(services, job_id)
    artifact = add_artifact(services, jobs[0], b"smaller")
    other = add_job(services, model)
    assert client.delete(f"/v1/batches/{batch}").status_code == 204
    for path in (f"/v1/batches/{batch}", f"/v1/jobs/{jobs[0]}", f"/v1/artifacts/{artifact}/content"):
        assert client.get(path).status_code == 404
    assert client.get(f"/v1/jobs/{other}").status_code == 200
    assert [found for page in services.store.objects() for found in page] == []


def test_an_old_batch_goes_once_its_jobs_are_gone(
    client: TestClient, services: Services, clock: HandClock
) -> None:
    model = add_model(services)
    kept, gone = post(client, [body(model)])["id"], post(client, [body(model)])["id"]
    for batch in (kept, gone):
        end(services, jobs_of(client, batch)[0]["id"])
    assert client.delete(f"/v1/jobs/{jobs_of(client, gone)[0]['id']}").status_code == 204
    assert client.get(f"/v1/batches/{gone}").json()["counts"]["total"] == 1
    assert expire_batches(services.sessions, clock.now() + timedelta(days=1)) == 1
    with services.sessions() as session:
        assert session.scalars(select(Batch.id)).all() == [kept]
