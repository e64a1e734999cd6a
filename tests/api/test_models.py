"""Lists, layers and deletion of networks and data sets."""

import pytest
from fastapi.testclient import TestClient

from app.core.unit import Services
from tests.api.seeds import add_dataset, add_job, add_model, onnx_bytes


def test_a_list_is_read_page_by_page_without_gaps(client: TestClient, services: Services) -> None:
    made = sorted(add_model(services) for _ in range(5))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/models", params={"limit": "2", "order": "asc"} | cursor).json()
        seen += [model["id"] for model in page["data"]]
        assert page["first_id"] == page["data"][0]["id"]
        assert page["last_id"] == page["data"][-1]["id"]
        cursor = {"after": page["last_id"]}
        if not page["has_more"]:
            break
    assert seen == made
    newest_first = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert newest_first == made[::-1]


def test_an_empty_list_has_no_ids(client: TestClient) -> None:
    assert client.get("/v1/datasets").json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "order=up", "after=nonsense", "status=odd"]
)
def test_a_page_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/models?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["parameter"] == query.split("=")[0]


@pytest.mark.parametrize("resource", ["models", "datasets", "jobs", "artifacts"])
@pytest.mark.parametrize("odd", ["model_x", "%00", "'--", "x" * 300, "job_" + "0" * 26])
def test_what_is_no_id_is_not_found(client: TestClient, resource: str, odd: str) -> None:
    answer = client.get(f"/v1/{resource}/{odd}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_layers_are_listed_once_the_network_is_ready(client: TestClient, services: Services) -> None:
    layers = client.get(f"/v1/models/{add_model(services)}/layers").json()
    assert [layer["name"] for layer in layers["data"]] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    early = client.get(f"/v1/models/{add_model(services, status='inspecting', layers=None)}/layers")
    assert (early.status_code, early.json()["code"]) == (409, "invalid_state")


def test_a_rejected_network_says_why(client: TestClient, services: Services) -> None:
    problem = {
        "type": "https://basisconv.dev/problems/unsupported_operator",
        "title": "t",
        "status": 422,
        "detail": "The operator NonZero …",
        "code": "unsupported_operator",
        "layer": "n1",
    }
    model = add_model(services, status="rejected", error=problem, input=None, summary=None, layers=None)
    assert client.get(f"/v1/models/{model}").json()["error"] == problem | {"hint": None}


def test_what_a_job_uses_is_not_deleted(client: TestClient, services: Services) -> None:
    model, dataset = add_model(services), add_dataset(services)
    job = add_job(services, model, dataset_id=dataset, status="succeeded")
    for path in (f"/v1/models/{model}", f"/v1/datasets/{dataset}"):
        refused = client.delete(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
        assert job in refused.json()["detail"]
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    for path in (f"/v1/models/{model}", f"/v1/datasets/{dataset}"):
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404


def test_an_object_goes_with_the_last_row_that_names_it(client: TestClient, services: Services) -> None:
    data = onnx_bytes()
    first, second = (client.post("/v1/models", files={"file": ("a.onnx", data)}).json() for _ in range(2))
    assert first["sha256"] == second["sha256"]
    client.delete(f"/v1/models/{first['id']}")
    assert services.store.exists(first["sha256"])
    client.delete(f"/v1/models/{second['id']}")
    assert not services.store.exists(first["sha256"])


def test_weights_need_the_name_of_a_known_network(client: TestClient) -> None:
    weights = b"\x60\0\0\0\0\0\0\0" + b'{"a":{}}'.ljust(96)
    without = client.post("/v1/models", files={"file": ("w.safetensors", weights)})
    assert (without.status_code, without.json()["code"]) == (422, "unsupported_format")
    assert "architecture" in without.json()["hint"]
    unknown = client.post(
        "/v1/models", files={"file": ("w.safetensors", weights)}, data={"architecture": "alexnet"}
    )
    assert (unknown.status_code, unknown.json()["code"]) == (422, "validation_failed")
    assert unknown.json()["errors"][0]["pointer"].endswith("/architecture")
    listed = client.get("/v1/architectures").json()["data"]
    assert {"resnet50", "cifar_resnet20", "vgg16_bn"} <= {one["id"] for one in listed}
    known = client.post(
        "/v1/models", files={"file": ("w.safetensors", weights)}, data={"architecture": listed[0]["id"]}
    )
    assert known.status_code == 201
    assert (known.json()["format"], known.json()["architecture"]) == ("weights", listed[0]["id"])
