"""What every answer tells a browser: nothing is guessed, framed, or run from elsewhere."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api.access import routes
from app.core.settings import Settings
from app.core.unit import Services
from app.main import create_app
from tests.api.conftest import _client
from tests.api.world import make_world

PAGE = {"Accept": "text/html"}


def test_every_answer_has_the_headers_that_browsers_need(
    app: FastAPI, services: Services, new_key: Callable[..., str]
) -> None:
    world = make_world(app, services, new_key, "mark")
    for route in routes(app):
        if route.method != "GET":
            continue
        path = re.sub(r"{(\w+)}", lambda found: world.id_of(found[1]), route.path)
        for client in (world.client, _client(app, None)):
            answer = client.get(path, headers=PAGE)
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["x-frame-options"] == "DENY", path
            assert answer.headers["referrer-policy"] == "no-referrer", path
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy, path
            assert re.search(r"default-src '(none|self)'", policy), path
            if path.startswith("/v1/") and not path.endswith("/content"):
                assert answer.headers["cache-control"] in {"no-store", "no-cache"}, path


def test_no_page_holds_a_script_or_a_style_of_its_own(
    app: FastAPI, services: Services, new_key: Callable[..., str]
) -> None:
    world = make_world(app, services, new_key, "mark")
    for route in routes(app):
        if route.method != "GET" or route.path.startswith(("/v1/", "/static", "/favicon", "/openapi")):
            continue
        page = world.client.get(
            re.sub(r"{(\w+)}", lambda found: world.id_of(found[1]), route.path), headers=PAGE
        )
        if "text/html" in page.headers["content-type"]:
            assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", page.text) == []


def test_the_reports_one_style_is_the_one_that_its_policy_names(
    app: FastAPI, services: Services, new_key: Callable[..., str]
) -> None:
    import base64
    import hashlib

    world = make_world(app, services, new_key, "mark")
    report = world.client.get(f"/v1/jobs/{world.id_of('job_id')}/report")
    [style] = re.findall(r"<style>(.*?)</style>", report.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in report.headers["content-security-policy"]


@pytest.mark.parametrize(("url", "expected"), [("https://b.example", True), ("http://b.example", False)])
def test_browsers_are_told_to_keep_to_https_where_that_is_how_they_come(
    settings: Settings, services: Services, url: str, expected: bool
) -> None:
    changed = settings.model_copy(update={"public_url": url})
    answer = _client(create_app(changed, replace(services, settings=changed)), None).get("/livez")
    assert ("strict-transport-security" in answer.headers) == expected


def test_a_strangers_method_makes_no_series_of_its_own(client: TestClient) -> None:
    for number in range(5):
        client.request(f"SERIES{number}", "/livez")
    counted = client.get("/metrics").text
    assert "SERIES" not in counted
    assert 'method="other"' in counted
