"""What a key may use is counted in the database, also when two ask at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.core.unit import Services
from app.jobs.tables import Job
from app.keys.tables import Reservation
from app.uploads.room import KEPT
from tests.api.conftest import HandClock, _client
from tests.api.seeds import add_artifact, add_job, add_model, npz_bytes, onnx_bytes

AT_ONCE = 4


def _upload(client: TestClient, data: bytes, path: str = "/v1/models", name: str = "net.onnx") -> Any:
    return client.post(path, files={"file": (name, data)})


def _owner(client: TestClient) -> str:
    return str(client.get("/v1/usage").json()["owner"])


@pytest.fixture
def with_limits(app: FastAPI, new_key: Callable[..., str]) -> Callable[..., TestClient]:
    """`with_limits(stored_bytes=…)`: a client of a new owner whose key has these quotas."""
    return lambda **limits: _client(app, new_key(limits=limits))


def _job(model: str) -> dict[str, Any]:
    return {"kind": "compress", "model": model, "compression": {"target": {"macs": 0.5}}}


# Bytes


def test_an_upload_beyond_the_quota_is_refused_with_the_numbers(
    with_limits: Callable[..., TestClient],
) -> None:
    first, second = onnx_bytes(0.1), onnx_bytes(0.2)
    client = with_limits(stored_bytes=len(first) + len(second) - 1)
    assert _upload(client, first).status_code == 201
    refused = _upload(client, second)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    problem = refused.json()
    assert (problem["quota"], problem["used"]) == ("stored_bytes", len(first))
    assert problem["limit"] == len(first) + len(second) - 1
    assert int(refused.headers["retry-after"]) > 0
    assert f"{len(first):,}" in problem["detail"]
    model = client.get("/v1/models").json()["data"][0]["id"]
    assert client.delete(f"/v1/models/{model}").status_code == 204
    assert _upload(client, second).status_code == 201


def test_a_body_that_cannot_fit_is_refused_before_it_is_read(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(stored_bytes=1_000)
    refused = _upload(client, bytes(3_000_000), "/v1/datasets", "x.npz")
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert refused.json()["needed"] > 3_000_000
    assert _files(services) == []


def test_a_body_of_unknown_length_ends_where_the_quota_does(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.npz"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)

    client = with_limits(stored_bytes=200_000)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused = client.post("/v1/datasets", content=chunks(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert _files(services) == []
    assert _reservations(services) == 0


def test_a_file_over_the_services_own_limit_is_told_so_and_not_of_the_quota(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(stored_bytes=10 * services.settings.max_model_bytes)
    too_long = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "99999999999"}
    refused = client.post("/v1/models", content=b"", headers=too_long)
    assert (refused.status_code, refused.json()["code"]) == (413, "upload_too_large")


def test_of_uploads_at_once_only_those_that_fit_are_kept(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    files = [onnx_bytes(n / 10) for n in range(1, AT_ONCE + 1)]
    limit = 2 * len(files[0]) + 10
    client = with_limits(stored_bytes=limit)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda data: _upload(client, data), files))
    assert {answer.status_code for answer in answers} <= {201, 429}
    kept = [answer for answer in answers if answer.status_code == 201]
    assert 1 <= len(kept) <= 2
    assert client.get("/v1/usage").json()["stored_bytes"] == {
        "used": len(kept) * len(files[0]),
        "limit": limit,
    }
    assert len(_files(services)) == len(kept)
    assert _reservations(services) == 0


def test_equal_files_count_once_and_another_owners_not_at_all(
    with_limits: Callable[..., TestClient],
) -> None:
    data = onnx_bytes()
    client, other = with_limits(stored_bytes=10 * len(data)), with_limits(stored_bytes=10 * len(data))
    for _ in range(3):
        assert _upload(client, data).status_code == 201
    assert client.get("/v1/usage").json()["stored_bytes"]["used"] == len(data)
    assert other.get("/v1/usage").json()["stored_bytes"]["used"] == 0


def test_checked_copies_and_files_of_jobs_count_too(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(stored_bytes=100)
    owner = _owner(client)
    model = add_model(services, owner, bytes=10, canonical_sha256="c" * 64, canonical_bytes=20)
    add_artifact(services, add_job(services, model, owner, status="succeeded"), b"x" * 70, owner_id=owner)
    assert client.get("/v1/usage").json()["stored_bytes"]["used"] == 100
    refused = client.post("/v1/jobs", json=_job(model))
    assert (refused.status_code, refused.json()["quota"]) == (429, "stored_bytes")


def test_room_kept_by_a_killed_process_is_free_again_after_a_while(
    with_limits: Callable[..., TestClient], services: Services, clock: HandClock
) -> None:
    client = with_limits(stored_bytes=10_000)
    row = Reservation(id="upload_x", owner_id=_owner(client), bytes=9_999, expires_at=clock.now() + KEPT)
    with services.sessions.begin() as session:
        session.add(row)
    assert _upload(client, npz_bytes(), "/v1/datasets", "x.npz").status_code == 429
    clock.advance(seconds=KEPT.total_seconds() + 1)
    assert _upload(client, npz_bytes(), "/v1/datasets", "x.npz").status_code == 201


def test_an_upload_that_breaks_off_frees_its_room(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(stored_bytes=10_000)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/v1/models", content=b"--b\r\nnonsense", headers=headers).status_code == 400
    assert _reservations(services) == 0


def _files(services: Services) -> list[Path]:
    return [path for path in (services.settings.var_dir / "objects").rglob("*") if path.is_file()]


def _reservations(services: Services) -> int:
    with services.sessions() as session:
        return session.scalar(select(func.count()).select_from(Reservation)) or 0


# Jobs


def test_a_job_beyond_the_quota_is_refused_until_another_has_ended(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(active_jobs=1)
    model = add_model(services, _owner(client))
    running = client.post("/v1/jobs", json=_job(model)).json()
    refused = client.post("/v1/jobs", json=_job(model))
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert (refused.json()["quota"], refused.json()["used"], refused.json()["limit"]) == ("active_jobs", 1, 1)
    assert int(refused.headers["retry-after"]) > 0
    assert client.post(f"/v1/jobs/{running['id']}/cancel").status_code == 200
    assert client.post("/v1/jobs", json=_job(model)).status_code == 201


def test_a_plan_that_waits_counts_as_a_job_does(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(active_jobs=1)
    body = {key: value for key, value in _job(add_model(services, _owner(client))).items() if key != "kind"}
    plan = client.post("/v1/plans", json=body)
    assert plan.status_code == 201
    assert client.get("/v1/usage").json()["active_jobs"]["used"] == 1
    assert client.post("/v1/plans", json=body).json()["quota"] == "active_jobs"
    assert client.delete(f"/v1/plans/{plan.json()['id']}").status_code == 204
    assert client.post("/v1/jobs", json=body | {"kind": "compress"}).status_code == 201


def test_of_jobs_posted_at_once_no_more_than_the_quota_are_taken(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(active_jobs=2)
    owner = _owner(client)
    model = add_model(services, owner)
    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/jobs", json=_job(model)), range(2 * AT_ONCE)))
    assert sorted(answer.status_code for answer in answers) == [201, 201] + [429] * (2 * AT_ONCE - 2)
    with services.sessions() as session:
        assert session.scalar(select(func.count()).where(Job.owner_id == owner)) == 2


def test_a_repeated_request_is_answered_although_the_quota_is_used_up(
    with_limits: Callable[..., TestClient], services: Services
) -> None:
    client = with_limits(active_jobs=1)
    model = add_model(services, _owner(client))
    headers = {"Idempotency-Key": "once"}
    first = client.post("/v1/jobs", json=_job(model), headers=headers)
    again = client.post("/v1/jobs", json=_job(model), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]


# Limits of keys


def test_a_limit_of_nought_is_none(with_limits: Callable[..., TestClient]) -> None:
    client = with_limits(stored_bytes=0, active_jobs=0, requests_per_minute=0)
    usage = client.get("/v1/usage")
    assert [usage.json()[name]["limit"] for name in ("stored_bytes", "active_jobs")] == [None, None]
    assert "ratelimit" not in usage.headers


def test_keys_of_one_owner_share_what_is_used_and_differ_in_what_they_may(
    app: FastAPI, new_key: Callable[..., str], client: TestClient, services: Services
) -> None:
    owner = _owner(client)
    narrow = _client(app, new_key(owner_id=owner, limits={"active_jobs": 1}))
    model = add_model(services, owner)
    assert client.post("/v1/jobs", json=_job(model)).status_code == 201
    assert narrow.post("/v1/jobs", json=_job(model)).status_code == 429
    assert client.post("/v1/jobs", json=_job(model)).status_code == 201


def test_who_is_held_to_a_limit_cannot_give_away_more(app: FastAPI, client: TestClient) -> None:
    body = {"name": "tenant", "scopes": ["read", "write", "admin"], "limits": {"active_jobs": 5}}
    made = client.post("/v1/keys", json=body).json()
    assert made["limits"] == {"stored_bytes": None, "active_jobs": 5, "requests_per_minute": None}
    tenant = _client(app, made["key"])
    assert tenant.post("/v1/keys", json={"name": "x"}).json()["limits"]["active_jobs"] == 5
    for more in (0, 6):
        refused = tenant.post("/v1/keys", json={"name": "x", "limits": {"active_jobs": more}})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "#/limits/active_jobs"
    assert tenant.post("/v1/keys", json={"name": "x", "limits": {"active_jobs": 2}}).status_code == 201


def test_a_keys_limits_can_be_changed_and_hold_from_then_on(
    app: FastAPI, client: TestClient, services: Services
) -> None:
    made = client.post(
        "/v1/keys", json={"name": "ci", "limits": {"active_jobs": 1, "stored_bytes": 7}}
    ).json()
    user = _client(app, made["key"])
    address = f"/v1/keys/{made['id']}"
    changed = client.patch(address, json={"limits": {"active_jobs": 5}})
    assert changed.json()["limits"] == {"active_jobs": 5, "stored_bytes": 7, "requests_per_minute": None}
    assert user.get("/v1/usage").json()["active_jobs"]["limit"] == 5
    assert client.patch(address, json={"limits": {"stored_bytes": None}, "name": "CI"}).status_code == 200
    assert client.get(address).json()["name"] == "CI"
    usual = services.settings.max_stored_bytes
    assert user.get("/v1/usage").json()["stored_bytes"]["limit"] == usual
    assert client.patch(address, json={"limits": {"active_jobs": -1}}).status_code == 422
    assert client.patch(address, json={"scopes": ["admin"]}).status_code == 422
    assert user.patch(address, json={"name": "x"}).status_code == 403


def test_who_is_held_to_a_limit_cannot_lift_it(app: FastAPI, client: TestClient) -> None:
    body = {"name": "tenant", "scopes": ["admin"], "limits": {"active_jobs": 5}}
    made = client.post("/v1/keys", json=body).json()
    tenant = _client(app, made["key"])
    for limit in (6, 0):
        lifted = tenant.patch(f"/v1/keys/{made['id']}", json={"limits": {"active_jobs": limit}})
        assert lifted.status_code == 422
    reset = tenant.patch(f"/v1/keys/{made['id']}", json={"limits": {"active_jobs": None}})
    assert reset.json()["limits"]["active_jobs"] == 5


# Requests


def test_too_many_requests_are_refused_until_the_time_that_is_told(
    with_limits: Callable[..., TestClient], stranger: TestClient
) -> None:
    client = with_limits(requests_per_minute=3)
    answers = [client.get("/v1/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert refused.json()["limit"] == 3
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=60'
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert stranger.get("/livez").status_code == 200


def test_one_keys_requests_cost_another_nothing(with_limits: Callable[..., TestClient]) -> None:
    busy, quiet = with_limits(requests_per_minute=1), with_limits(requests_per_minute=1)
    assert [busy.get("/v1/jobs").status_code for _ in range(2)] == [200, 429]
    assert quiet.get("/v1/jobs").status_code == 200
