"""Who may do what, by key and by session."""

import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.api.access import routes
from app.core.security import COOKIE, sign_in_by_token, start_session
from app.core.unit import Services
from app.keys import recent
from app.keys.service import ensure_owner_key
from app.keys.tables import ApiKey
from tests.api.conftest import HandClock, _client
from tests.api.seeds import add_model, owner_of


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer bc_wrong", "Bearer \u00e4\u00f6"]
)
def test_without_a_known_key_nothing_under_v1_answers(stranger: TestClient, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = stranger.get("/v1/models", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_is_shown_once_and_kept_as_a_hash(client: TestClient, services: Services) -> None:
    made = client.post("/v1/keys", json={"name": "ci", "scopes": ["read"]}).json()
    assert made["key"].startswith("bc_")
    assert "key" not in client.get(f"/v1/keys/{made['id']}").json()
    with services.sessions() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.id == made["id"])).one()
        assert made["key"] not in str(vars(row))


def test_a_new_key_is_a_new_owner_unless_it_shares_its_makers(
    app: FastAPI, client: TestClient, services: Services
) -> None:
    model = add_model(services)
    separate = client.post("/v1/keys", json={"name": "a", "scopes": []}).json()
    shared = client.post("/v1/keys", json={"name": "b", "scopes": [], "owner": "self"}).json()
    assert _client(app, separate["key"]).get(f"/v1/models/{model}").status_code == 404
    assert _client(app, shared["key"]).get(f"/v1/models/{model}").status_code == 200


def test_an_empty_list_of_scopes_means_all_but_admin(app: FastAPI, new_key: Callable[..., str]) -> None:
    client = _client(app, new_key(scopes=[]))
    assert client.get("/v1/models").status_code == 200
    assert client.post("/v1/jobs", json={}).status_code == 422  # allowed, but not valid
    refused = client.get("/v1/keys")
    assert refused.status_code == 403
    assert "admin" in refused.json()["detail"]


def test_a_key_that_may_only_read_cannot_write(app: FastAPI, new_key: Callable[..., str]) -> None:
    client = _client(app, new_key(scopes=["read"]))
    assert client.get("/v1/jobs").status_code == 200
    assert client.post("/v1/jobs", json={}).status_code == 403
    assert client.delete("/v1/models/model_x").status_code == 403


def test_an_expired_key_signs_nobody_in(
    app: FastAPI, new_key: Callable[..., str], clock: HandClock, client: TestClient
) -> None:
    expires = clock.now().replace(microsecond=0)
    clock.advance(hours=-1)
    secret = new_key(expires_at=expires)
    assert _client(app, secret).get("/v1/models").status_code == 200
    clock.advance(hours=2)
    refused = _client(app, secret).get("/v1/models")
    assert refused.status_code == 401
    assert "expired" in refused.json()["detail"]
    past = client.post("/v1/keys", json={"name": "x", "scopes": [], "expires_at": expires.isoformat()})
    assert past.status_code == 422


def test_a_revoked_key_signs_nobody_in(app: FastAPI, client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "ci", "scopes": []}).json()
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    refused = _client(app, made["key"]).get("/v1/models")
    assert refused.status_code == 401
    assert "revoked" in refused.json()["detail"]


def test_a_key_that_was_just_used_ends_with_its_revocation(app: FastAPI, client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "ci", "scopes": []}).json()
    assert _client(app, made["key"]).get("/v1/models").status_code == 200
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert _client(app, made["key"]).get("/v1/models").status_code == 401


def test_a_key_revoked_by_another_process_ends_within_a_second(
    app: FastAPI, client: TestClient, services: Services, clock: HandClock
) -> None:
    made = client.post("/v1/keys", json={"name": "ci", "scopes": []}).json()
    assert _client(app, made["key"]).get("/v1/models").status_code == 200
    with services.sessions.begin() as session:
        session.get_one(ApiKey, made["id"]).revoked_at = clock.now()
    clock.advance(seconds=recent.KEPT.total_seconds())
    assert _client(app, made["key"]).get("/v1/models").status_code == 401


def test_the_owner_key_is_made_once_and_can_be_renewed(
    services: Services, owner_secret: str, app: FastAPI, clock: HandClock
) -> None:
    owner = owner_of(services)
    with services.sessions.begin() as session:
        assert ensure_owner_key(session, services.settings, clock) is None
        clock.advance(seconds=1)
        renewed = ensure_owner_key(session, services.settings, clock, renew=True)
    assert renewed is not None
    assert _client(app, owner_secret).get("/v1/keys").status_code == 401
    listed = _client(app, renewed).get("/v1/keys").json()["data"]
    assert {key["owner"] for key in listed} == {owner}


def test_an_admin_manages_its_own_keys_and_those_of_the_owners_it_made_alone(
    app: FastAPI, client: TestClient
) -> None:
    every = {"scopes": ["read", "write", "admin"]}
    tenant = client.post("/v1/keys", json={"name": "tenant"} | every).json()
    as_tenant = _client(app, tenant["key"])
    guest = as_tenant.post("/v1/keys", json={"name": "guest"}).json()
    seen = {key["id"] for key in client.get("/v1/keys").json()["data"]}
    assert {tenant["id"], guest["id"]} < seen
    assert {key["id"] for key in as_tenant.get("/v1/keys").json()["data"]} == {tenant["id"], guest["id"]}
    [first] = seen - {tenant["id"], guest["id"]}
    assert as_tenant.get(f"/v1/keys/{first}").status_code == 404
    assert as_tenant.delete(f"/v1/keys/{first}").status_code == 404
    assert client.delete(f"/v1/keys/{guest['id']}").status_code == 204
    assert _client(app, guest["key"]).get("/v1/models").status_code == 401


def test_who_revoked_every_key_gets_their_own_things_back_with_the_next(
    services: Services, owner_secret: str, app: FastAPI, clock: HandClock
) -> None:
    owner = owner_of(services)
    model = add_model(services)
    client = _client(app, owner_secret)
    [key] = client.get("/v1/keys").json()["data"]
    assert client.delete(f"/v1/keys/{key['id']}").status_code == 204
    clock.advance(seconds=1)
    with services.sessions.begin() as session:
        secret = ensure_owner_key(session, services.settings, clock)
    assert secret is not None
    assert owner_of(services) == owner
    assert _client(app, secret).get(f"/v1/models/{model}").status_code == 200


def test_the_last_use_is_written_once_a_minute(
    app: FastAPI, client: TestClient, clock: HandClock, services: Services
) -> None:
    made = client.post("/v1/keys", json={"name": "ci"}).json()
    user = _client(app, made["key"])

    def last_used() -> object:
        return client.get(f"/v1/keys/{made['id']}").json()["last_used_at"]

    assert last_used() is None
    user.get("/v1/models")
    first = last_used()
    clock.advance(seconds=30)
    user.get("/v1/models")
    assert last_used() == first
    clock.advance(seconds=31)
    user.get("/v1/models")
    assert last_used() != first


def test_a_request_that_comes_again_makes_no_second_key(client: TestClient) -> None:
    headers = {"Idempotency-Key": "the-same"}
    first = client.post("/v1/keys", json={"name": "ci"}, headers=headers).json()
    again = client.post("/v1/keys", json={"name": "ci"}, headers=headers).json()
    assert (first["id"], first["key"]) == (again["id"], again["key"])


def _signed_in(app: FastAPI, services: Services) -> TestClient:
    from starlette.responses import Response

    with services.sessions() as session:
        key = session.scalars(select(ApiKey)).first()
    assert key is not None
    response = Response()
    start_session(response, services.settings, key.id)
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    client = _client(app, None)
    client.cookies.set(COOKIE, cookie.split(";")[0].split("=", 1)[1])
    return client


def test_a_session_cookie_is_accepted_under_v1(app: FastAPI, services: Services, owner_secret: str) -> None:
    client = _signed_in(app, services)
    assert client.get("/v1/models").status_code == 200
    same_site = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/keys", json={"name": "x"}, headers=same_site).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://testserver.evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_site_cannot_use_the_session(
    app: FastAPI, services: Services, owner_secret: str, headers: dict[str, str]
) -> None:
    """On every route under /v1, and on every page's route that does something."""
    client = _signed_in(app, services)
    for route in routes(app):
        if route.asks == "nothing" and route.method == "GET":
            continue
        if route.path.startswith("/v1/") or route.method not in {"GET", "HEAD"}:
            refused = client.request(route.method, re.sub("[{}]", "", route.path), headers=headers)
            assert refused.status_code == 403, f"{route.method} {route.path}: {refused.status_code}"


def test_a_link_on_another_site_leads_to_a_page_but_no_frame_shows_it(
    app: FastAPI, services: Services, owner_secret: str
) -> None:
    client = _signed_in(app, services)
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    page = client.get("/jobs", headers=followed | {"Sec-Fetch-Dest": "document"})
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert client.get("/jobs", headers=followed | {"Sec-Fetch-Dest": "iframe"}).status_code == 403


def test_our_own_pages_are_known_by_the_public_url_where_a_proxy_rewrites_the_host(
    app: FastAPI, services: Services, owner_secret: str
) -> None:
    client = _signed_in(app, services)
    ours = {"Origin": services.settings.public_url}
    assert client.post("/v1/keys", json={"name": "x"}, headers=ours).status_code == 201


def test_the_session_cookie_is_for_https_alone_where_the_public_url_is(
    services: Services, owner_secret: str
) -> None:
    from starlette.responses import Response

    settings = services.settings.model_copy(update={"public_url": "https://basisconv.example"})
    for chosen, secure in ((settings, True), (services.settings, False)):
        response = Response()
        start_session(response, chosen, "key_x")
        attributes = response.headers["set-cookie"].lower().split("; ")
        assert {"httponly", "samesite=lax", "path=/"} <= set(attributes)
        assert ("secure" in attributes) == secure


def test_a_bearer_key_may_come_from_any_site(client: TestClient) -> None:
    answer = client.post("/v1/keys", json={"name": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 201


def test_a_forged_or_foreign_cookie_is_no_session(
    app: FastAPI, services: Services, owner_secret: str
) -> None:
    client = _signed_in(app, services)
    good = client.cookies[COOKIE]
    client.cookies.clear()
    client.cookies.set(COOKIE, good[:-2] + ("aa" if good[-2:] != "aa" else "bb"))
    assert client.get("/v1/models").status_code == 401


def test_the_sign_in_link_sets_the_owners_session(services: Services, owner_secret: str) -> None:
    from dataclasses import replace

    from pydantic import SecretStr

    from app.core.errors import Unauthenticated

    settings = services.settings.model_copy(update={"sign_in_token": SecretStr("token-of-this-run")})
    with_link = replace(services, settings=settings)
    answer = sign_in_by_token(with_link, "token-of-this-run")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert COOKIE in answer.headers["set-cookie"]
    for wrong in ("", "token-of-another-run", "tök"):
        with pytest.raises(Unauthenticated):
            sign_in_by_token(with_link, wrong)
    with pytest.raises(Unauthenticated):
        sign_in_by_token(services, "")  # no token is set: there is no such link


def test_what_belongs_to_another_owner_does_not_exist(
    client: TestClient, other_owner: TestClient, services: Services
) -> None:
    model = add_model(services)
    assert client.get(f"/v1/models/{model}").status_code == 200
    for call in (
        other_owner.get(f"/v1/models/{model}"),
        other_owner.get(f"/v1/models/{model}/layers"),
        other_owner.delete(f"/v1/models/{model}"),
    ):
        assert call.status_code == 404
    assert other_owner.get("/v1/models").json()["data"] == []
