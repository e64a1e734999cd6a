"""The plan on a network's page: asked for, moved, edited, run; with the real worker behind it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import OpenPage, ready_example, wait_for
from tests.support.processes import wait_until
from tests.support.service import Service

MEASURING_MILLISECONDS = 180_000
ANSWERED_MILLISECONDS = 60_000  # generous: a second where nothing else runs
PLANNED = re.compile("layers would be replaced")


@pytest.fixture(scope="module")
def example(shared_server: Service) -> dict[str, Any]:
    """The bundled example, and its layers that can become cheaper."""
    sent = ready_example(shared_server)
    layers = shared_server.client.get(f"/v1/models/{sent['model']}/layers").json()["data"]
    return sent | {"layers": [layer["name"] for layer in layers if layer["compressible"]]}


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    expect.set_options(timeout=ANSWERED_MILLISECONDS)
    yield
    expect.set_options(timeout=None)


@pytest.fixture(autouse=True)
def without_plans(shared_server: Service, example: dict[str, Any]) -> None:
    for plan in plans(shared_server):
        shared_server.client.delete(f"/v1/plans/{plan['id']}").raise_for_status()


def plans(server: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get("/v1/plans").raise_for_status().json()["data"]
    return found


def open_plan(page: Page, server: Service, example: dict[str, Any]) -> None:
    page.goto(f"{server.url}/models/{example['model']}")
    page.get_by_label("Measured on").select_option(example["dataset"])
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.locator("#plan-status")).to_have_text(PLANNED, timeout=MEASURING_MILLISECONDS)


def row(page: Page, layer: str) -> Any:
    return page.locator(f'tr[data-layer="{layer}"]')


@pytest.mark.timeout(900)  # measuring, planning and a whole job, beside whatever else two cores have to do
def test_a_plan_is_made_moved_edited_and_run_as_it_stands(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any]
) -> None:
    page = open_page()
    open_plan(page, shared_server, example)
    expect(page.locator("[data-fact=macs]")).to_contain_text("of")
    expect(page.locator("[data-fact=accuracy]")).to_contain_text("points")

    slider = page.get_by_label("Operations to keep at most")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")  # from 60 to 50 %
    expect(page.locator("#plan-share-out")).to_have_text("50 %")
    expect(page.locator("#plan-status")).to_have_text(re.compile(r"(4\d|50)\.\d.% of the operations remain"))

    edited, left_out = example["layers"][1], example["layers"][2]
    page.get_by_label(f"Rank of {edited}").fill("5")
    page.keyboard.press("Tab")
    expect(page.locator("#plan-edited")).to_be_visible()
    expect(row(page, edited).locator("[data-share]")).not_to_have_text("100 %")
    row(page, left_out).get_by_role("checkbox").check()
    expect(row(page, left_out)).to_contain_text("Left out on request")
    expect(page.get_by_label(f"Rank of {left_out}")).to_be_disabled()
    expect(page.get_by_label(f"Rank of {edited}")).to_have_value("5")

    row(page, edited).get_by_role("button", name="Curve").click()
    expect(page.get_by_label("Layer", exact=True)).to_have_value(edited)
    expect(page.locator("#sensitivity canvas")).to_be_visible()
    expect(page.locator("#sensitivity tbody tr.chosen")).to_have_count(1)
    assert page.locator("#sensitivity tbody tr").count() > 3

    wait_until(lambda: len(plans(shared_server)) == 1, 30)
    (listed,) = plans(shared_server)
    plan = shared_server.client.get(f"/v1/plans/{listed['id']}").json()
    page.get_by_role("button", name="Run this plan").click()
    page.wait_for_url(re.compile("/jobs/job_"))
    job = wait_for(shared_server.client, f"/v1{page.url.removeprefix(shared_server.url)}", "succeeded", 300)
    chosen = [
        {layer["name"]: (layer["form"], layer["rank"]) for layer in layers}
        for layers in (plan["layers"], job["result"]["layers"])
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0][edited][1] == 5
    assert chosen[0][left_out] == ("dense", None)
    for name in ("macs", "params"):
        assert plan["predicted"][name] == job["result"]["compressed"][name]


def test_of_many_wishes_the_last_is_shown_and_alone_kept(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any]
) -> None:
    page = open_page()
    open_plan(page, shared_server, example)
    slider = page.get_by_label("Operations to keep at most")
    slider.focus()
    for _ in range(35):
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(20)
    expect(page.locator("#plan-status")).to_have_text(re.compile(r"2[345]\.\d.% of the operations remain"))
    expect(page.locator("#plan")).not_to_have_attribute("aria-busy", "true")
    wait_until(lambda: len(plans(shared_server)) == 1, 30)  # those before are deleted behind the page's back
    (kept,) = plans(shared_server)
    assert kept["compression"]["target"]["macs"] == 0.25


def test_coming_back_shows_the_last_plan_and_asks_for_none(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any]
) -> None:
    page = open_page()
    open_plan(page, shared_server, example)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.reload()
    expect(page.locator("#plan-status")).to_have_text(PLANNED)
    expect(page.get_by_label("Measured on")).to_have_value(example["dataset"])
    assert set(asked) == {"GET"}


def test_a_refusal_is_told_where_the_plan_is_asked_for(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any]
) -> None:
    page = open_page()
    open_plan(page, shared_server, example)
    page.route("**/v1/plans", lambda route: route.abort())
    page.get_by_label("Operations to keep at most").press("ArrowLeft")
    expect(page.locator("#plan-problem")).to_contain_text("The server did not answer")
    page.unroute("**/v1/plans")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.locator("#plan-problem")).to_be_hidden()
    expect(page.locator("#plan-status")).to_have_text(PLANNED)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_open_plan_fits_a_phone(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any], scheme: str
) -> None:
    page = open_page(width=360, color_scheme=scheme)
    open_plan(page, shared_server, example)
    expect(page.locator("#sensitivity canvas")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#sensitivity canvas").bounding_box()["width"] <= 360  # type: ignore[index]


def test_another_data_set_stops_the_measuring_that_nobody_waits_for(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/models/{example['model']}")
    page.get_by_label("Measured on").select_option("")
    page.get_by_role("button", name="Plan", exact=True).click()
    wait_until(lambda: len(plans(shared_server)) == 1, 30)
    page.get_by_label("Measured on").select_option(example["dataset"])
    expect(page.locator("#plan-status")).to_have_text(PLANNED, timeout=MEASURING_MILLISECONDS)
    wait_until(lambda: len(plans(shared_server)) == 1, 30)
    (kept,) = plans(shared_server)
    assert (kept["dataset"], kept["status"]) == (example["dataset"], "ready")
