"""Every route says who may call it, and holds to it."""

from collections.abc import Callable
from inspect import iscoroutinefunction

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from app.api.access import Access, routes
from tests.api.conftest import _client

OPEN = {  # what shows nothing of anybody; a new one needs a reason
    "/",  # the sign-in link's target; strangers get the sign-in form, keys need `read`
    "/livez",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/static",
    "/favicon.ico",
    "/sign-in",
    "/sign-out",
}


def test_every_route_declares_its_scope(app: FastAPI) -> None:
    undeclared = [f"{route.method} {route.path}" for route in routes(app) if route.asks == "undeclared"]
    assert not undeclared, f"add Reader, Writer, Admin or OPEN (app/core/security.py) to: {undeclared}"


def test_only_what_shows_nothing_of_anybody_is_open(app: FastAPI) -> None:
    assert {route.path for route in routes(app) if route.asks == "nothing"} == OPEN


def test_a_route_that_declares_nothing_is_found(app: FastAPI) -> None:
    @app.get("/v1/forgotten")
    def forgotten() -> None: ...

    assert Access("GET", "/v1/forgotten", "undeclared") in list(routes(app))


def test_without_a_key_no_guarded_route_answers(app: FastAPI, stranger: TestClient) -> None:
    for route in _guarded(app):
        answer = stranger.request(route.method, _filled(route.path))
        assert answer.status_code == 401, f"{route.method} {route.path}: {answer.status_code}"


@pytest.mark.parametrize("missing", ["read", "write", "admin"])
def test_a_key_without_the_scope_is_refused(app: FastAPI, new_key: Callable[..., str], missing: str) -> None:
    client = _client(app, new_key(scopes=sorted({"read", "write", "admin"} - {missing})))
    tried = [route for route in _guarded(app) if route.asks == missing]
    assert tried
    for route in tried:
        answer = client.request(route.method, _filled(route.path))
        assert answer.status_code == 403, f"{route.method} {route.path}: {answer.status_code}"
        assert route.method == "HEAD" or f"`{missing}`" in answer.json()["detail"]


def test_a_form_is_read_only_after_the_scope_was_seen(app: FastAPI, new_key: Callable[..., str]) -> None:
    client = _client(app, new_key(scopes=["read"]))
    for path in ("/v1/models", "/v1/datasets", "/v1/jobs", "/v1/keys"):
        assert client.post(path, json={}).status_code == 403


def test_the_start_page_needs_the_scope_to_read(app: FastAPI, new_key: Callable[..., str]) -> None:
    assert _client(app, new_key(scopes=["write"])).get("/").status_code == 403
    assert _client(app, new_key(scopes=["read"])).get("/").status_code == 200


def _guarded(app: FastAPI) -> list[Access]:
    return [route for route in routes(app) if route.asks not in ("nothing", "undeclared")]


def _filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def test_no_route_holds_a_connection_while_it_waits_for_a_thread(app: FastAPI) -> None:
    """A plain endpoint in a router without `OneThread` does; see app/core/routes.py."""
    plain = [
        route.path
        for route in iter_route_contexts(app.routes)
        if getattr(route, "dependant", None) is not None and not iscoroutinefunction(route.endpoint)
    ]
    assert not plain, "APIRouter(…, route_class=OneThread)"
