"""What belongs to another owner does not exist: tried on every route that the application has."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from app.api.access import Access, routes
from app.core.unit import Services
from app.openapi import document
from tests.api.world import BODIES, FORMS, MAKERS, World, make_world, snapshot

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ACCEPTED = ("*/*", "text/html", "text/event-stream")
NO_SUCH_ID = "0" * 26
DOCUMENT = document()


@pytest.fixture
def theirs(app: FastAPI, services: Services, new_key: Callable[..., str]) -> World:
    return make_world(app, services, new_key, "alpha-owner")


@pytest.fixture
def ours(app: FastAPI, services: Services, new_key: Callable[..., str]) -> World:
    return make_world(app, services, new_key, "omega-owner")


def _parameters(path: str) -> list[str]:
    return re.findall(r"{(\w+)(?::\w+)?}", path)


def _address(path: str, world: World) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: world.id_of(found[1]), path)


def _with_ids(app: FastAPI) -> dict[str, set[str]]:
    """Addresses that name something, and the methods that they know."""
    found: dict[str, set[str]] = {}
    for route in routes(app):
        if _parameters(route.path):
            found.setdefault(route.path, set()).add(route.method)
    return found


def test_there_is_a_maker_for_everything_that_an_address_can_name(app: FastAPI) -> None:
    missing = {
        f"{parameter} of {path}"
        for path in _with_ids(app)
        for parameter in _parameters(path)
        if parameter not in MAKERS
    }
    assert not missing, f"tests/api/world.py: MAKERS needs a line that makes {', '.join(sorted(missing))}"


def test_another_owners_things_are_not_there_whatever_is_asked_of_them(
    app: FastAPI, services: Services, theirs: World, ours: World
) -> None:
    before = snapshot(services, ours.owner_id)
    wrong = []
    for path, known in _with_ids(app).items():
        for method in METHODS:
            form = FORMS.get((method, path), lambda _: {})(ours)
            for accept in ACCEPTED if method == "GET" else ACCEPTED[:1]:
                headers = form.get("headers", {}) | {"Accept": accept}
                answer = ours.client.request(method, _address(path, theirs), **form | {"headers": headers})
                allowed = {404} if method in known else {404, 405}
                if answer.status_code not in allowed:
                    wrong.append(f"{method} {path} answered {answer.status_code}: {answer.text[:200]}")
                if theirs.mark in answer.text:
                    wrong.append(f"{method} {path} tells a name")
    assert not wrong, (
        "\n".join(wrong)
        + "\nA route that refuses the request's form first needs a form in tests/api/world.py: FORMS."
    )
    assert snapshot(services, ours.owner_id) == before


def test_the_owner_finds_them_at_the_same_addresses(app: FastAPI, theirs: World) -> None:
    """Or the test above would prove nothing."""
    for path, known in _with_ids(app).items():
        if "GET" in known:
            answer = theirs.client.get(_address(path, theirs))
            assert answer.status_code in {200, 204}, f"{path}: {answer.text[:300]}"


def _lists(app: FastAPI) -> Iterator[Access]:
    for route in routes(app):
        if route.method == "GET" and not _parameters(route.path) and route.asks != "nothing":
            yield route


def test_no_list_and_no_page_shows_another_owners_things(app: FastAPI, theirs: World, ours: World) -> None:
    told = []
    for route in _lists(app):
        declared = DOCUMENT["paths"].get(route.path, {}).get("get", {}).get("parameters", [])
        named = [entry["name"] for entry in declared if f"{entry['name']}_id" in MAKERS]
        queries: list[dict[str, str]] = [{}, *({name: theirs.made[f"{name}_id"]} for name in named)]
        for query in queries:
            answer = ours.client.get(route.path, params=query)
            assert answer.status_code == 200, f"{route.path}?{query}: {answer.text[:300]}"
            told += [
                f"{route.path}?{query} tells {secret}" for secret in _secrets(theirs) if secret in answer.text
            ]
    assert told == []
    assert theirs.made["model_id"] in theirs.client.get("/v1/models").text
    assert theirs.mark in theirs.client.get("/jobs").text


def _secrets(world: World) -> list[str]:
    return [world.mark, world.owner_id, *world.made.values()]


def _references(path: str) -> list[str]:
    """Fields of the POST's body, at its top, that name a resource."""
    body = DOCUMENT["paths"].get(path, {}).get("post", {}).get("requestBody", {})
    found = set()
    for content in body.get("content", {}).values():
        for schema in _resolved(content["schema"]):
            found |= {name for name in schema.get("properties", {}) if f"{name}_id" in MAKERS}
    return sorted(found)


def _resolved(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        yield from _resolved(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for part in [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]:
        yield from _resolved(part)
    yield schema


NAMING = [path for path in DOCUMENT["paths"] if _references(path)]


@pytest.mark.parametrize("path", NAMING)
def test_a_body_cannot_speak_of_another_owners_things(
    services: Services, theirs: World, ours: World, path: str
) -> None:
    assert path in BODIES, f"tests/api/world.py: BODIES needs a valid body for POST {path}"
    valid = BODIES[path](ours)
    unmentioned = set(_references(path)) - set(valid)
    assert not unmentioned, f"tests/api/world.py: the body for POST {path} does not mention {unmentioned}"
    before = snapshot(services, ours.owner_id)
    for name in _references(path):
        stolen = theirs.id_of(f"{name}_id")
        refused = ours.client.post(path, json=valid | {name: stolen})
        unknown = ours.client.post(path, json=valid | {name: f"{name}_{NO_SUCH_ID}"})
        assert refused.status_code == 404, f"{name}: {refused.text[:300]}"
        assert (refused.status_code, refused.json()["code"]) == (unknown.status_code, unknown.json()["code"])
    assert snapshot(services, ours.owner_id) == before
    assert ours.client.post(path, json=valid).status_code < 300
