"""Jobs: accepted, refused with a reason, cancelled, deleted."""

import html
import json
import re
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient

from app.core.settings import Settings
from app.core.unit import Services
from app.jobs.tables import Job
from tests.api.seeds import (
    RESULT,
    SUMMARY,
    add_artifact,
    add_dataset,
    add_job,
    add_metrics,
    add_model,
)


def _body(model: str, **changed: Any) -> dict[str, Any]:
    return {"kind": "compress", "model": model, "compression": {"target": {"macs": 0.6}}} | changed


def test_a_job_is_queued_with_its_options_and_rung_for(
    client: TestClient, services: Services, settings: Settings
) -> None:
    model, dataset = add_model(services), add_dataset(services)
    body = _body(model, dataset=dataset, name="first", metadata={"run": 7}, training={"epochs": 2})
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["object"], job["status"], job["attempt"]) == ("job", "queued", 0)
    assert (job["model"], job["dataset"], job["metadata"]) == (model, dataset, {"run": 7})
    assert job["training"]["epochs"] == 2
    assert job["compression"]["target"]["macs"] == 0.6
    assert (job["compression"]["basis"], job["compression"]["forms"]) == ("activations", "auto")
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    (first,) = client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert (first["seq"], first["type"]) == (1, "progress")
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as broker:
        (message,) = [json.loads(raw) for raw in broker.lrange("jobs", 0, -1)]
    assert message["headers"]["task"] == "worker.run_job"
    assert job["id"] in message["headers"]["argsrepr"]
    with services.sessions() as session:
        assert session.get_one(Job, job["id"]).rung_at is not None


@pytest.mark.parametrize("asked", [{}, {"basis": "activations"}])
def test_without_images_responses_are_measured_on_images_made_from_the_network(
    client: TestClient, services: Services, asked: dict[str, str]
) -> None:
    body = _body(add_model(services), compression={"target": {"macs": 0.6}} | asked)
    job = client.post("/v1/jobs", json=body).json()
    assert (job["compression"]["basis"], job["compression"]["forms"]) == ("activations", "auto")


def test_without_images_the_papers_basis_is_the_paper_whole(client: TestClient, services: Services) -> None:
    body = _body(add_model(services), compression={"target": {"macs": 0.6}, "basis": "weights"})
    job = client.post("/v1/jobs", json=body).json()
    assert (job["compression"]["basis"], job["compression"]["forms"]) == ("weights", "basis")


def test_given_ranks_are_ranks_of_the_papers_form(client: TestClient, services: Services) -> None:
    body = _body(
        add_model(services), dataset=add_dataset(services), compression={"target": {"ranks": {"conv1": 8}}}
    )
    assert client.post("/v1/jobs", json=body).json()["compression"]["forms"] == "basis"


@pytest.mark.parametrize("outputs", [[1], [10, 10], []])
def test_a_target_on_accuracy_is_refused_for_a_network_that_scores_no_classes(
    client: TestClient, services: Services, outputs: list[int]
) -> None:
    model = add_model(services, summary=SUMMARY | {"outputs": outputs})
    target = {"compression": {"target": {"accuracy_drop": 0.01}}, "dataset": add_dataset(services)}
    answer = client.post("/v1/jobs", json=_body(model, **target))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["pointer"] == "#/compression/target/accuracy_drop"
    assert "one output of class scores" in answer.json()["detail"]
    assert "share of the operations" in answer.json()["hint"]


def test_a_target_on_accuracy_is_taken_with_images_and_the_free_forms(
    client: TestClient, services: Services
) -> None:
    wanted = {"compression": {"target": {"accuracy_drop": 0}}, "dataset": add_dataset(services)}
    job = client.post("/v1/jobs", json=_body(add_model(services), **wanted))
    assert job.status_code == 201, job.text
    assert job.json()["compression"]["target"]["accuracy_drop"] == 0
    assert (job.json()["compression"]["basis"], job.json()["compression"]["forms"]) == ("activations", "auto")


@pytest.mark.parametrize(
    ("changed", "pointer", "words"),
    [
        (
            {"compression": {"target": {"accuracy_drop": 0.01}}},
            "#/compression/target/accuracy_drop",
            "needs a data set",
        ),
        ({"compression": {"target": {"macs": 1}, "basis": "random"}}, "#/compression/basis", "kind `train`"),
        (
            {"compression": {"target": {"expansion": 2}}},
            "#/compression/target/expansion",
            "kind `train`",
        ),
        ({"training": {"epochs": 1}}, "#/training/epochs", "needs a data set"),
        ({"limits": {"accuracy_drop": 0.1}}, "#/limits/accuracy_drop", "needs a data set"),
        (
            {"compression": {"target": {"macs": 0.5}, "layers": {"include": ["conv1", "head*"]}}},
            "#/compression/layers/include/1",
            "'head*' matches no layer",
        ),
        (
            {"compression": {"target": {"macs": 0.5}, "layers": {"exclude": ["stem"]}}},
            "#/compression/layers/exclude/0",
            "'stem' matches no layer",
        ),
        (
            {"compression": {"target": {"ranks": {"nope": 3}}}},
            "#/compression/target/ranks/nope",
            "no layer 'nope'",
        ),
        (
            {"compression": {"target": {"ranks": {"layer1.0.conv1": 17}}}},
            "#/compression/target/ranks/layer1.0.conv1",
            "at most 16, not 17",
        ),
        ({"compression": {"target": {"ranks": {"conv1": 0}}}}, "#/compression/target/ranks/conv1", ""),
        ({"compression": {"target": {}}}, "#/compression/target", "exactly one"),
        ({"compression": {"target": {"macs": 0.5, "params": 0.5}}}, "#/compression/target", "exactly one"),
        ({"compression": {"target": {"macs": 1.5}}}, "#/compression/target/macs", "less than or equal to 1"),
        ({"compression": {"target": {"macs": 0.5}, "colour": 1}}, "#/compression/colour", ""),
        ({"surprise": 1}, "#/surprise", ""),
        ({"exports": ["onnx", "onnx"]}, "#/exports", "twice"),
        ({"metadata": {"x": "y" * 20_000}}, "#/metadata", "16,000"),
        ({"metadata": {"x": "a\0b"}}, "#", "NUL"),
        ({"training": {"epochs": -1}}, "#/training/epochs", ""),
    ],
)
def test_a_body_that_cannot_be_done_is_refused_with_the_place(
    client: TestClient, services: Services, changed: dict[str, Any], pointer: str, words: str
) -> None:
    answer = client.post("/v1/jobs", json=_body(add_model(services), **changed))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert words in answer.json()["detail"]
    assert client.get("/v1/jobs").json()["data"] == []


def test_every_bad_pattern_and_rank_is_named_at_once(client: TestClient, services: Services) -> None:
    compression = {
        "target": {"ranks": {"nope": 1, "conv1": 99}},
        "layers": {"include": ["*"], "exclude": ["a", "b"]},
    }
    answer = client.post("/v1/jobs", json=_body(add_model(services), compression=compression))
    assert len(answer.json()["errors"]) == 4


def test_an_objective_on_labels_needs_labels(client: TestClient, services: Services) -> None:
    unlabelled = add_dataset(services, labelled=False, classes=None)
    body = _body(add_model(services), dataset=unlabelled)
    refused = client.post("/v1/jobs", json=body | {"training": {"epochs": 1, "objective": "labels"}})
    assert refused.json()["errors"][0]["pointer"] == "#/training/objective"
    distilled = client.post("/v1/jobs", json=body | {"training": {"epochs": 1, "objective": "distill"}})
    assert distilled.status_code == 201


@pytest.mark.parametrize("status", ["inspecting", "rejected"])
def test_a_job_needs_a_ready_model_and_data_set(client: TestClient, services: Services, status: str) -> None:
    model, dataset = add_model(services), add_dataset(services)
    early = client.post("/v1/jobs", json=_body(add_model(services, status=status)))
    assert (early.status_code, early.json()["code"]) == (409, "invalid_state")
    early = client.post("/v1/jobs", json=_body(model, dataset=add_dataset(services, status=status)))
    assert (early.status_code, early.json()["code"]) == (409, "invalid_state")
    missing = client.post("/v1/jobs", json=_body(model, dataset=dataset.replace("dataset", "model")))
    assert missing.status_code == 404


def test_anothers_model_cannot_be_used(
    other_owner: TestClient, client: TestClient, services: Services
) -> None:
    assert other_owner.post("/v1/jobs", json=_body(add_model(services))).status_code == 404


def test_jobs_are_listed_by_status_and_batch(client: TestClient, services: Services) -> None:
    model = add_model(services)
    running = add_job(services, model)
    failed = add_job(services, model, status="failed")
    listed = client.get("/v1/jobs", params={"status": "failed"}).json()["data"]
    assert [job["id"] for job in listed] == [failed]
    assert {job["id"] for job in client.get("/v1/jobs").json()["data"]} == {running, failed}
    assert client.get("/v1/jobs", params={"batch": "batch_" + "0" * 26}).json()["data"] == []


def test_a_queued_job_is_cancelled_at_once_with_one_done_event(
    client: TestClient, services: Services
) -> None:
    job = client.post("/v1/jobs", json=_body(add_model(services))).json()["id"]
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert answer.json()["finished_at"] is not None
    events = client.get(f"/v1/jobs/{job}/events").json()["data"]
    assert [event["type"] for event in events] == ["progress", "done"]
    assert events[-1]["data"] == {"status": "cancelled"}


def test_a_running_job_is_asked_to_stop(client: TestClient, services: Services) -> None:
    job = add_job(services, add_model(services), status="running")
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_an_ended_job_cannot_be_cancelled(client: TestClient, services: Services, status: str) -> None:
    job = add_job(services, add_model(services), status=status)
    refused = client.post(f"/v1/jobs/{job}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    assert status in refused.json()["detail"]


def test_only_ended_jobs_are_deleted_and_their_files_with_them(
    client: TestClient, services: Services
) -> None:
    model = add_model(services)
    assert client.delete(f"/v1/jobs/{add_job(services, model)}").status_code == 409
    job, twin = (add_job(services, model, status="succeeded") for _ in range(2))
    artifact = add_artifact(services, job, b"network")
    add_artifact(services, twin, b"network")
    sha256 = client.get(f"/v1/artifacts/{artifact}").json()["sha256"]
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    assert client.get(f"/v1/artifacts/{artifact}").status_code == 404
    assert services.store.exists(sha256)  # the other job's artifact has the same bytes
    assert client.delete(f"/v1/jobs/{twin}").status_code == 204
    assert not services.store.exists(sha256)


def test_a_finished_job_shows_its_result(client: TestClient, services: Services) -> None:
    warnings = [{"code": "baseline_mismatch", "detail": "…"}]
    job = add_job(services, add_model(services), status="succeeded", result=RESULT, warnings=warnings)
    shown = client.get(f"/v1/jobs/{job}").json()
    assert shown["result"] == RESULT
    assert shown["warnings"] == warnings
    assert shown["progress"] == {"fraction": 0.4, "epoch": None, "eta_seconds": None}


def test_metrics_are_given_by_name_and_step(client: TestClient, services: Services) -> None:
    job = add_job(services, add_model(services))
    add_metrics(services, job)
    series = client.get(f"/v1/jobs/{job}/metrics").json()
    assert [(point["step"], point["value"]) for point in series["train_loss"]] == [(1, 0.9), (2, 0.5)]
    assert len(series["accuracy"]) == 1


def test_the_report_holds_the_numbers_and_escapes_names(client: TestClient, services: Services) -> None:
    model = add_model(services, name="<script>alert(1)</script>")
    options = {"kind": "compress", "compression": {"basis": "activations", "target": {"macs": 0.5}}}
    options |= {"training": {"seed": 4711}}
    images = add_dataset(services, name="<b>images</b>")
    job = add_job(services, model, status="succeeded", result=RESULT, dataset_id=images, options=options)
    add_metrics(services, job)
    add_artifact(services, job, b'{"weights": "<i>recipe</i>"}', name="recipe.json", format="recipe")
    page = client.get(f"/v1/jobs/{job}/report")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in page.headers["content-security-policy"]
    assert "&lt;script" in page.text
    text = html.unescape(page.text).replace("\xa0", " ").replace("\u202f", " ")
    told = ["91.73 %", "40 551 040", "layer1.0.conv1", "Two layers would cost", "Decomposed", "4711"]
    told += ["1.50 ± 0.10 ms", "torch", '"target": {', "recipe.json", "<i>recipe</i>", "Training loss"]
    for expected in (*told, "a" * 64, "b" * 64):  # the sums of network and images
        assert expected in text


@pytest.mark.parametrize(("device", "told"), [("cuda", "GPU"), ("cpu", "CPU"), (None, "CPU")])
def test_times_are_told_as_those_of_the_device_that_took_them(
    client: TestClient, services: Services, device: str | None, told: str
) -> None:
    result = RESULT | {"latency_device": device}
    job = add_job(services, add_model(services), status="succeeded", result=result)
    assert client.get(f"/v1/jobs/{job}").json()["result"]["latency_device"] == device
    report = html.unescape(client.get(f"/v1/jobs/{job}/report").text)
    assert f"On the server's {told}, the two networks" in report


def test_the_report_asks_nobody_for_anything(client: TestClient, services: Services) -> None:
    job = add_job(services, add_model(services), status="succeeded", result=RESULT)
    add_metrics(services, job)
    page = client.get(f"/v1/jobs/{job}/report").text
    assert re.findall(r"(?i)<(?:script|link|img|iframe|object|embed|base|use|image)\b", page) == []
    assert re.findall(r"(?i)\s(?:src|srcset|href|style|on\w+)=|url\(|@import", page) == []
    [inner] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert html.unescape(inner).startswith("default-src 'none'; style-src 'sha256-")
    assert page.count("<style>") == 1
    assert page.count("<svg") >= 4  # loss, two batch sizes of two networks, layers


def test_the_networks_that_were_tried_for_an_accuracy_are_in_the_result_and_the_report(
    client: TestClient, services: Services
) -> None:
    tries = [
        {"share": 0.5, "macs": 20_275_000, "loss": 0.0197, "passed": False},
        {"share": 0.58, "macs": 23_519_000, "loss": 0.0096, "passed": True},
    ]
    found = {"share": 0.58, "expected_loss": 0.0096}
    search = {"allowed": 0.01, "held_back_images": 4321, "tries": tries} | found
    result = RESULT | {"search": search}
    job = add_job(services, add_model(services), status="succeeded", result=result)
    assert client.get(f"/v1/jobs/{job}").json()["result"]["search"] == search
    page = client.get(f"/v1/jobs/{job}/report").text
    for expected in ("How the size was found", "4\u202f321 train images", "1 point", "58.0", "−0.96"):
        assert expected in page


def test_a_failed_job_has_a_report_and_a_running_one_has_none(client: TestClient, services: Services) -> None:
    model = add_model(services)
    problem = {
        "type": "t",
        "title": "t",
        "status": 422,
        "detail": "At best 70 %.",
        "code": "target_infeasible",
    }
    failed = add_job(services, model, status="failed", error=problem)
    page = client.get(f"/v1/jobs/{failed}/report")
    assert page.status_code == 200
    assert "At best 70 %." in page.text
    assert client.get(f"/v1/jobs/{add_job(services, model)}/report").status_code == 409
