"""Several runs of one network beside each other, by mouse, by keyboard and as a table."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import OpenPage, example_job, wait_for
from tests.support.service import Service


@pytest.fixture(scope="module")
def runs(shared_server: Service) -> list[dict[str, Any]]:
    sent = [
        example_job(
            shared_server,
            name=f"Keeps {share}",
            compression={"target": {"macs": share}, "basis": "weights"},
            training={"epochs": 0},
            exports=["onnx"],
        )
        for share in (0.4, 0.8)
    ]
    return [wait_for(shared_server.client, f"/v1/jobs/{job['id']}", "succeeded") for job in sent]


def test_runs_are_points_that_the_keyboard_reaches_and_opens(
    open_page: OpenPage, shared_server: Service, runs: list[dict[str, Any]]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/jobs/{runs[0]['id']}")
    page.get_by_role("link", name="Compare runs").click()
    expect(page.locator("[data-points] a.original").first).to_be_visible()
    first = page.locator(f"[data-points] a[data-id={runs[0]['id']}]")
    first.focus()
    expect(page.locator(f"tr.marked[data-id={runs[0]['id']}]")).to_be_visible()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.id") != runs[0]["id"]
    page.keyboard.press("ArrowLeft")
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(runs[0]["id"]))


def test_chosen_runs_alone_are_compared_by_other_costs(
    open_page: OpenPage, shared_server: Service, runs: list[dict[str, Any]]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/models/{runs[0]['model']}/compare")
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    for run in runs:
        page.get_by_role("checkbox", name=f"Compare {run['name']}").first.check()
    page.get_by_role("button", name="Compare the chosen runs").click()
    expect(page).to_have_url(re.compile(r"/compare\?job=.*&job="))
    rows = page.get_by_role("region", name="All figures").locator("tbody tr")
    expect(rows).to_have_count(2)
    page.get_by_label("Cost by").select_option("bytes")
    table = page.get_by_role("region", name="Cost against quality: the same as a table")
    expect(table.get_by_role("columnheader", name="File size")).to_be_visible()
    expect(table.locator("tbody tr")).to_have_count(3)  # two runs and the original


def test_without_runs_the_page_says_how_to_get_some(open_page: OpenPage, shared_server: Service) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/compare")
    expect(page.get_by_text("Nothing to compare yet")).to_be_visible()
    answer = page.goto(f"{shared_server.url}/compare?job=job_00000000000000000000000000")
    assert answer is not None
    assert answer.status == 404
