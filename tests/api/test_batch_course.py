"""What becomes of a batch: its jobs end or are cancelled, its results are collected, it is deleted."""

import json
from datetime import timedelta
from threading import Barrier, Thread

from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.batches.retention import expire_batches
from app.batches.tables import Batch
from app.core.unit import Services
from app.jobs import leases
from app.jobs.leases import Lease
from app.jobs.tables import Job
from tests.api.conftest import HandClock
from tests.api.seeds import RESULT, add_artifact, add_dataset, add_job, add_model
from tests.api.sent_batches import body, end, jobs_of, post


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
