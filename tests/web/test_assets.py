"""Static files: each page's stylesheets as one, and addresses under which a browser may keep them."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.web.assets import SITE, STATIC, Assets, static, stylesheet


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = Starlette()
    app.mount("/static", Assets())
    with TestClient(app) as client:
        yield client


def sheet(part: str) -> str:
    return (STATIC / "css" / f"{part}.css").read_text()


def test_a_pages_stylesheets_come_as_one_in_their_order(client: TestClient) -> None:
    answer = client.get(stylesheet("form", "plan"))
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.text == "\n".join(sheet(part) for part in (*SITE, "form", "plan"))


@pytest.mark.parametrize("address", [stylesheet("form"), static("js/home.js")])
def test_what_is_asked_for_by_its_hash_is_kept_for_good(client: TestClient, address: str) -> None:
    assert "immutable" in client.get(address).headers["cache-control"]
    assert "cache-control" not in client.get(address.partition("?")[0]).headers


def test_other_parts_have_another_address() -> None:
    assert len({stylesheet(), stylesheet("form"), stylesheet("plan"), stylesheet("form", "plan")}) == 4


@pytest.mark.parametrize("name", ["site+nothing", "site+form+form", "site+../base", "site+", "nothing"])
def test_what_joins_no_sheets_is_not_there(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/css/{name}.css?v=1")
    assert answer.status_code == 404
    assert "cache-control" not in answer.headers
