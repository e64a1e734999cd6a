"""The same key and body: one resource and the same answer."""

from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.unit import Services
from tests.api.conftest import HandClock, _client
from tests.api.seeds import add_model, onnx_bytes

KEY = {"Idempotency-Key": "order-66"}


def _body(model: str, name: str = "a") -> dict[str, object]:
    return {"kind": "compress", "model": model, "name": name, "compression": {"target": {"macs": 0.5}}}


def test_the_first_answer_is_given_again(client: TestClient, services: Services) -> None:
    body = _body(add_model(services))
    first = client.post("/v1/jobs", json=body, headers=KEY)
    client.post(f"/v1/jobs/{first.json()['id']}/cancel")
    again = client.post("/v1/jobs", json=dict(reversed(body.items())), headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(client.get("/v1/jobs").json()["data"]) == 1


def test_another_body_under_the_same_key_is_a_conflict(client: TestClient, services: Services) -> None:
    model = add_model(services)
    client.post("/v1/jobs", json=_body(model), headers=KEY)
    other = client.post("/v1/jobs", json=_body(model, "b"), headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_a_refused_request_does_not_use_the_key_up(client: TestClient, services: Services) -> None:
    model = add_model(services, status="inspecting")
    assert client.post("/v1/jobs", json=_body(model), headers=KEY).status_code == 409
    ready = add_model(services)
    assert client.post("/v1/jobs", json=_body(ready), headers=KEY).status_code == 201


def test_concurrent_duplicates_make_one_resource(
    app: FastAPI, client: TestClient, owner_secret: str, services: Services
) -> None:
    body = _body(add_model(services))
    clients = [_client(app, owner_secret) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda c: c.post("/v1/jobs", json=body, headers=KEY), clients))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs").json()["data"]) == 1


def test_an_upload_sent_twice_is_one_model(client: TestClient) -> None:
    file = {"file": ("a.onnx", onnx_bytes())}
    first = client.post("/v1/models", files=file, headers=KEY)
    again = client.post("/v1/models", files=file, headers=KEY)
    assert again.json() == first.json()
    assert len(client.get("/v1/models").json()["data"]) == 1
    other = client.post("/v1/models", files={"file": ("a.onnx", onnx_bytes(0.7))}, headers=KEY)
    assert other.json()["code"] == "idempotency_conflict"


def test_a_key_made_twice_has_one_secret_that_works(app: FastAPI, client: TestClient) -> None:
    first = client.post("/v1/keys", json={"name": "ci"}, headers=KEY).json()
    again = client.post("/v1/keys", json={"name": "ci"}, headers=KEY).json()
    assert again == first
    assert _client(app, first["key"]).get("/v1/models").status_code == 200


def test_owners_do_not_share_keys(client: TestClient, other_owner: TestClient) -> None:
    file = {"file": ("a.onnx", onnx_bytes())}
    mine = client.post("/v1/models", files=file, headers=KEY).json()["id"]
    theirs = other_owner.post("/v1/models", files=file, headers=KEY).json()["id"]
    assert mine != theirs


def test_a_key_is_forgotten_after_a_day(client: TestClient, clock: HandClock) -> None:
    file = {"file": ("a.onnx", onnx_bytes())}
    first = client.post("/v1/models", files=file, headers=KEY).json()["id"]
    clock.advance(hours=25)
    assert client.post("/v1/models", files=file, headers=KEY).json()["id"] != first
