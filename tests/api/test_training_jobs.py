"""Jobs of the kind `train`: what they may ask for."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.unit import Services
from tests.api.seeds import RESULT, add_dataset, add_job, add_model


def _body(services: Services, **changed: Any) -> dict[str, Any]:
    return {
        "kind": "train",
        "model": add_model(services),
        "dataset": add_dataset(services),
        "compression": {"target": {"macs": 0.2}},
        "training": {"epochs": 30},
    } | changed


def test_what_follows_from_the_kind_is_written_out(client: TestClient, services: Services) -> None:
    answer = client.post("/v1/jobs", json=_body(services, limits={"learnable_params": 0.05}))
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["kind"], job["compression"]["basis"], job["compression"]["forms"]) == (
        "train",
        "random",
        "basis",
    )
    assert (job["training"]["update"], job["training"]["objective"]) == ("mixing", "labels")
    assert job["limits"]["learnable_params"] == 0.05
    again = {name: job[name] for name in ("kind", "model", "dataset", "compression", "training", "exports")}
    assert client.post("/v1/jobs", json=again).status_code == 201


@pytest.mark.parametrize(
    "target",
    [{"macs": 0.2}, {"params": 0.3}, {"rank_fraction": 0.5}, {"expansion": 4}, {"ranks": {"conv1": 8}}],
)
def test_structure_is_asked_for_in_every_way_that_needs_no_weights(
    client: TestClient, services: Services, target: dict[str, Any]
) -> None:
    body = _body(services, compression={"basis": "random", "target": target})
    assert client.post("/v1/jobs", json=body).status_code == 201


@pytest.mark.parametrize(
    ("changed", "pointer", "words"),
    [
        ({"training": {"epochs": 0}}, "#/training/epochs", "at least 1 epoch"),
        ({"training": {}}, "#/training/epochs", "at least 1 epoch"),
        ({"training": {"epochs": 1, "update": "all"}}, "#/training/update", "`mixing` only"),
        ({"training": {"epochs": 1, "objective": "distill"}}, "#/training/objective", "from labels"),
        ({"dataset": None}, "#/dataset", "names none"),
        (
            {"compression": {"target": {"macs": 0.2}, "basis": "weights"}},
            "#/compression/basis",
            "weights are not used",
        ),
        ({"compression": {"target": {"energy": 0.9}}}, "#/compression/target/energy", "trained network"),
        ({"compression": {"target": {"latency": 0.9}}}, "#/compression/target/latency", "trained network"),
        (
            {"compression": {"target": {"accuracy_drop": 0.1}}},
            "#/compression/target/accuracy_drop",
            "trained network",
        ),
        ({"compression": {"target": {"macs": 0.2}, "forms": "auto"}}, "#/compression/forms", "`basis` only"),
        ({"compression": {"target": {"expansion": 17}}}, "#/compression/target/expansion", "16"),
        ({"limits": {"learnable_params": 0}}, "#/limits/learnable_params", "greater than 0"),
    ],
)
def test_what_training_cannot_do_is_refused_with_the_place(
    client: TestClient, services: Services, changed: dict[str, Any], pointer: str, words: str
) -> None:
    answer = client.post("/v1/jobs", json=_body(services, **changed))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert words in answer.json()["detail"]


def test_training_needs_labels(client: TestClient, services: Services) -> None:
    unlabelled = add_dataset(services, labelled=False, classes=None)
    answer = client.post("/v1/jobs", json=_body(services, dataset=unlabelled))
    assert answer.json()["errors"][0]["pointer"] == "#/dataset"
    assert "no labels" in answer.json()["detail"]


def test_the_report_and_the_page_of_a_trained_network_name_the_untrained_start(
    client: TestClient, services: Services
) -> None:
    options = {"kind": "train", "compression": {"basis": "random", "target": {"macs": 0.2}}}
    job = add_job(
        services, add_model(services), status="succeeded", kind="train", options=options, result=RESULT
    )
    report = client.get(f"/v1/jobs/{job}/report").text
    page = client.get(f"/jobs/{job}").text
    for text in (report, page):
        assert "which were not used" in text
        assert "untrained" in text.lower()
