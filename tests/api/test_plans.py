"""Plans: accepted and rung for, refused as a job would be, shown, listed, deleted with their model."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.settings import Settings
from app.core.unit import Services
from app.plans.tables import Measurement, Plan
from tests.api.conftest import _client
from tests.api.seeds import add_dataset, add_job, add_model, add_plan

RESULT: dict[str, Any] = {
    "feasible": True,
    "achievable": 0.21,
    "limits": {"macs": 0.21, "params": 0.24},
    "original": {"macs": 100, "params": 50},
    "predicted": {"macs": 60, "params": 40, "error": 0.01, "agreement": 0.98, "accuracy_drop": 0.004},
    "layers": [
        {
            "name": "conv1",
            "kind": "conv2d",
            "form": "basis",
            "rank": 8,
            "max_rank": 16,
            "replaced": True,
            "reason": None,
            "macs": 60,
            "params": 40,
            "macs_before": 100,
            "params_before": 50,
            "harm": 0.01,
            "sensitivity": [{"form": "basis", "rank": 8, "macs": 60, "params": 40, "harm": 0.01}],
        }
    ],
    "ranks": {"conv1": 8},
    "warnings": [],
}
WHOLE = {"form": "dense"}


def _body(model: str, **changed: Any) -> dict[str, Any]:
    return {"model": model, "compression": {"target": {"macs": 0.6}}} | changed


def test_a_plan_is_queued_and_rung_for(client: TestClient, services: Services, settings: Settings) -> None:
    model, dataset = add_model(services), add_dataset(services)
    answer = client.post("/v1/plans", json=_body(model, dataset=dataset))
    assert answer.status_code == 201, answer.text
    plan = answer.json()
    assert (plan["object"], plan["status"], plan["feasible"]) == ("plan", "queued", None)
    assert (plan["model"], plan["dataset"]) == (model, dataset)
    assert (plan["compression"]["basis"], plan["compression"]["forms"]) == ("activations", "auto")
    assert (plan["layers"], plan["predicted"], plan["ranks"]) == ([], None, None)
    assert client.get(f"/v1/plans/{plan['id']}").json() == plan
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as broker:
        (message,) = [json.loads(raw) for raw in broker.lrange("quick", 0, -1)]
    assert message["headers"]["task"] == "worker.plan"
    assert plan["id"] in message["headers"]["argsrepr"]


def test_a_ready_plan_shows_its_layers_and_a_list_leaves_their_curves_out(
    client: TestClient, services: Services
) -> None:
    plan = add_plan(services, add_model(services), status="ready", result=RESULT)
    shown = client.get(f"/v1/plans/{plan}").json()
    for name in ("feasible", "achievable", "limits", "original", "predicted", "layers", "ranks", "warnings"):
        assert shown[name] == RESULT[name]
    (row,) = client.get("/v1/plans").json()["data"]
    assert row["layers"][0]["sensitivity"] is None
    assert row["predicted"] == RESULT["predicted"]


def test_a_failed_plan_says_why(client: TestClient, services: Services) -> None:
    error = {"type": "t", "title": "T", "status": 422, "detail": "d", "code": "dataset_mismatch"}
    plan = add_plan(services, add_model(services), status="failed", error=error)
    shown = client.get(f"/v1/plans/{plan}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "dataset_mismatch")


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"compression": {"target": {}}}, "#/compression/target"),
        ({"compression": {"target": {"macs": 0.5, "params": 0.5}}}, "#/compression/target"),
        ({"compression": {"target": {"accuracy_drop": 0.01}}}, "#/compression/target/accuracy_drop"),
        ({"compression": {"target": {"latency": 0.5}}}, "#/compression/target/latency"),
        ({"compression": {"target": {"expansion": 2}}}, "#/compression/target/expansion"),
        ({"compression": {"target": {"macs": 0.5}, "basis": "random"}}, "#/compression/basis"),
        (
            {"compression": {"target": {"macs": 0.5}, "layers": {"exclude": ["nope*"]}}},
            "#/compression/layers/exclude/0",
        ),
        ({"compression": {"target": {"ranks": {"nope": 3}}}}, "#/compression/target/ranks/nope"),
        ({"compression": {"target": {"ranks": {"conv1": 17}}}}, "#/compression/target/ranks/conv1"),
        (
            {"compression": {"target": {"ranks": {"conv1": {"form": "kx1_1xk", "rank": 49}}}}},
            "#/compression/target/ranks/conv1",
        ),
        (
            {"compression": {"target": {"ranks": {"conv1": {"form": "dense", "rank": 3}}}}},
            "#/compression/target/ranks/conv1",
        ),
        ({"epochs": 3}, "#/epochs"),
    ],
)
def test_what_a_job_would_be_refused_for_a_plan_is_too(
    client: TestClient, services: Services, changed: dict[str, Any], pointer: str
) -> None:
    answer = client.post("/v1/plans", json=_body(add_model(services)) | changed)
    assert answer.status_code == 422, answer.text
    found = answer.json()
    assert found["code"] == "validation_failed"
    assert pointer in [error.get("pointer") for error in found["errors"]]


def test_by_weights_nothing_is_foreseen_of_accuracy(client: TestClient, services: Services) -> None:
    compression = {"target": {"accuracy_drop": 0.01}, "basis": "weights"}
    body = _body(add_model(services), dataset=add_dataset(services), compression=compression)
    answer = client.post("/v1/plans", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/compression/basis")


def test_layers_may_be_given_other_forms(client: TestClient, services: Services) -> None:
    ranks = {"conv1": 8, "layer1.0.conv1": {"form": "kx1_1xk", "rank": 48}, "layer1.0.conv2": WHOLE}
    body = _body(add_model(services), compression={"target": {"ranks": ranks}})
    plan = client.post("/v1/plans", json=body)
    assert plan.status_code == 201, plan.text
    shown = plan.json()["compression"]["target"]["ranks"]
    assert shown["layer1.0.conv2"] == {"form": "dense", "rank": None}
    job = client.post(
        "/v1/jobs", json={"kind": "compress"} | body | {"compression": plan.json()["compression"]}
    )
    assert job.status_code == 201, job.text
    assert job.json()["compression"] == plan.json()["compression"]


def test_missing_or_unready_inputs_are_told_apart(client: TestClient, services: Services) -> None:
    assert client.post("/v1/plans", json=_body("model_" + "0" * 26)).status_code == 404
    waiting = add_model(services, status="inspecting")
    assert client.post("/v1/plans", json=_body(waiting)).status_code == 409
    data = add_dataset(services, status="rejected")
    assert client.post("/v1/plans", json=_body(add_model(services), dataset=data)).status_code == 409


def test_the_same_key_and_body_make_one_plan(client: TestClient, services: Services) -> None:
    body, key = _body(add_model(services)), {"Idempotency-Key": "once"}
    first = client.post("/v1/plans", json=body, headers=key)
    assert client.post("/v1/plans", json=body, headers=key).json() == first.json()
    other = body | {"compression": {"target": {"macs": 0.5}}}
    conflict = client.post("/v1/plans", json=other, headers=key)
    assert (conflict.status_code, conflict.json()["code"]) == (422, "idempotency_conflict")
    assert len(client.get("/v1/plans").json()["data"]) == 1


def test_lists_are_by_owner_model_and_status(
    client: TestClient, other_owner: TestClient, services: Services
) -> None:
    one, two = add_model(services), add_model(services)
    plans = [add_plan(services, one), add_plan(services, two, status="ready", result=RESULT)]
    assert [row["id"] for row in client.get("/v1/plans?order=asc").json()["data"]] == plans
    assert [row["id"] for row in client.get(f"/v1/plans?model={two}").json()["data"]] == plans[1:]
    assert [row["id"] for row in client.get("/v1/plans?status=queued").json()["data"]] == plans[:1]
    assert client.get("/v1/plans?model=nonsense").json()["data"] == []
    assert other_owner.get("/v1/plans").json()["data"] == []
    for call in (other_owner.get, other_owner.delete):
        assert call(f"/v1/plans/{plans[0]}").status_code == 404
    assert other_owner.post("/v1/plans", json=_body(one)).status_code == 404


def test_a_key_that_may_only_read_plans_nothing(
    client: TestClient, services: Services, app: FastAPI, new_key: Callable[..., str]
) -> None:
    reader = _client(app, new_key(scopes=["read"]))
    assert reader.post("/v1/plans", json=_body(add_model(services))).status_code == 403
    assert reader.get("/v1/plans").status_code == 200


def test_a_plan_can_be_deleted_in_any_state(client: TestClient, services: Services) -> None:
    model = add_model(services)
    for status in ("queued", "ready", "failed"):
        plan = add_plan(services, model, status=status)
        assert client.delete(f"/v1/plans/{plan}").status_code == 204
        assert client.get(f"/v1/plans/{plan}").status_code == 404


@pytest.mark.parametrize("gone", ["models", "datasets"])
def test_plans_and_measurements_go_with_their_model_or_data_set(
    client: TestClient, services: Services, gone: str
) -> None:
    model, dataset = add_model(services), add_dataset(services)
    plan = add_plan(services, model, dataset_id=dataset, status="ready", result=RESULT)
    blob = services.store.put_bytes(b"numbers")
    with services.sessions.begin() as session:
        session.add(
            Measurement(
                model_id=model,
                key="k",
                dataset_id=dataset,
                sha256=blob.sha256,
                bytes=blob.bytes,
                created_at=datetime.now(UTC),
            )
        )
    resource = {"models": model, "datasets": dataset}[gone]
    assert client.delete(f"/v1/{gone}/{resource}").status_code == 204
    assert client.get(f"/v1/plans/{plan}").status_code == 404
    assert not services.store.exists(blob.sha256)
    with services.sessions() as session:
        assert session.query(Measurement).count() == session.query(Plan).count() == 0


def test_a_model_in_use_keeps_its_plans(client: TestClient, services: Services) -> None:
    model = add_model(services)
    plan = add_plan(services, model)
    add_job(services, model)
    assert client.delete(f"/v1/models/{model}").status_code == 409
    assert client.get(f"/v1/plans/{plan}").status_code == 200


@pytest.mark.parametrize("status", ["inspecting", "rejected", "ready"])
def test_a_networks_page_offers_a_plan_once_it_is_ready(
    client: TestClient, services: Services, status: str
) -> None:
    dataset = add_dataset(services)
    known = {} if status == "ready" else {"input": None, "summary": None, "layers": None}
    model = add_model(services, status=status, **known)
    page = client.get(f"/models/{model}", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert (f'data-model="{model}"' in page.text) == (status == "ready")
    assert (f'<option value="{dataset}" selected>' in page.text) == (status == "ready")
