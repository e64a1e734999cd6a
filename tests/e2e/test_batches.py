"""Batches on their pages, with the real workers behind them: a file with broken lines, a grid, the points."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import OpenPage, ready_example, wait_for
from tests.support.service import Service

SEEN_MILLISECONDS = 60_000


@pytest.fixture(scope="module")
def example(shared_server: Service) -> dict[str, Any]:
    return ready_example(shared_server)


@pytest.fixture(scope="module")
def batch(shared_server: Service, example: dict[str, Any]) -> dict[str, Any]:
    """A batch that has ended: two sizes of the bundled example."""
    jobs = [body(example, share) for share in (0.4, 0.7)]
    made = shared_server.client.post("/v1/batches", json={"jobs": jobs, "name": "Two sizes"})
    return wait_for(shared_server.client, f"/v1/batches/{made.raise_for_status().json()['id']}", "completed")


def body(example: dict[str, Any], share: float, **changed: Any) -> dict[str, Any]:
    compression = {"basis": "activations", "target": {"macs": share}}
    names = {"model": example["model"], "dataset": example["dataset"], "exports": ["onnx"]}
    return {"kind": "compress", "name": f"at {share:g}", "compression": compression} | names | changed


def send_file(page: Page, folder: Path, lines: list[str]) -> None:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines))
    page.locator("#lines").set_input_files(path)
    page.get_by_role("button", name="Check and start").click()


@pytest.mark.timeout(600)
def test_a_file_is_checked_by_line_and_the_rest_of_it_runs(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any], tmp_path: Path
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/batches")
    before = len(shared_server.client.get("/v1/jobs", params={"limit": 100}).json()["data"])
    good = json.dumps(body(example, 0.5, name="the good line"))
    send_file(page, tmp_path, [good, '{"model": ', json.dumps(body(example, 2))])
    refused = page.locator("#refused")
    expect(refused).to_be_visible()
    expect(refused.locator("tbody tr")).to_have_count(2)
    expect(refused.locator("tbody tr").nth(0)).to_contain_text(re.compile(r"2.*not JSON"))
    expect(refused.locator("tbody tr").nth(1)).to_contain_text(re.compile(r"3.*/compression/target/macs"))
    assert len(shared_server.client.get("/v1/jobs", params={"limit": 100}).json()["data"]) == before

    page.get_by_role("button", name="Start the other job").click()
    page.wait_for_url(re.compile("/batches/batch_"))
    expect(page.get_by_role("heading", name="Lines that are not valid")).to_be_visible()
    made = wait_for(
        shared_server.client, f"/v1/batches/{page.url.rpartition('/')[2].partition('?')[0]}", "completed"
    )
    assert (made["counts"]["succeeded"], made["counts"]["invalid"]) == (1, 2)
    expect(page.locator("#batch .status.completed")).to_be_visible(timeout=SEEN_MILLISECONDS)
    expect(page.locator("[data-points] a", has_text="")).to_have_count(2, timeout=SEEN_MILLISECONDS)
    expect(page.get_by_role("link", name="the good line").last).to_be_visible()


@pytest.mark.timeout(600)
def test_choices_from_lists_become_a_grid(
    open_page: OpenPage, shared_server: Service, example: dict[str, Any]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/batches")
    for box in page.locator("[name=models]").all():
        box.set_checked(box.get_attribute("value") == example["model"])
    page.get_by_label("In per cent").fill("50, 120")
    page.get_by_role("button", name="Start the batch").click()
    expect(page.locator("#grid-problem")).to_contain_text("between 0 and 100")
    page.get_by_label("In per cent").fill("40, 60 %")
    page.get_by_label("Basis from").select_option("activations,weights")
    expect(page.locator("#grid-count")).to_have_text("4 jobs")
    page.locator("#grid-name").fill("A grid")
    page.get_by_role("button", name="Start the batch").click()
    page.wait_for_url(re.compile("/batches/batch_"))
    expect(page.get_by_role("heading", level=1)).to_have_text("A grid")
    page.get_by_role("button", name="Cancel the batch").click()
    made = wait_for(shared_server.client, f"/v1/batches/{page.url.rpartition('/')[2]}", "cancelled")
    listed = shared_server.client.get("/v1/jobs", params={"batch": made["id"], "order": "asc"}).json()["data"]
    asked = [(job["compression"]["target"]["macs"], job["compression"]["basis"]) for job in listed]
    assert asked == [(0.4, "activations"), (0.4, "weights"), (0.6, "activations"), (0.6, "weights")]
    page.goto(f"{shared_server.url}/batches/{made['id']}")
    page.get_by_text("Delete", exact=True).click()
    page.get_by_role("button", name=re.compile("Delete its 4 jobs")).click()
    page.wait_for_url(re.compile("/batches$"))
    assert shared_server.client.get(f"/v1/batches/{made['id']}").status_code == 404


def test_every_network_is_a_point_that_keys_reach_and_a_row_of_the_table(
    open_page: OpenPage, shared_server: Service, batch: dict[str, Any]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/batches/{batch['id']}")
    points, rows = page.locator("[data-points] a"), page.locator("#pareto tbody tr")
    expect(points).to_have_count(3)  # the original too
    expect(rows).to_have_count(3)
    expect(page.locator("#pareto canvas")).to_be_visible()
    frame = page.locator(".pareto-plot").bounding_box()
    assert frame is not None
    for point in points.all():
        place = point.bounding_box()
        assert place is not None
        assert frame["x"] < place["x"] < frame["x"] + frame["width"]
        assert frame["y"] < place["y"] + place["height"] / 2 < frame["y"] + frame["height"]

    assert page.locator("[data-points] a[tabindex='0']").count() == 1
    page.locator("[data-points] a[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    expect(points.nth(1)).to_be_focused()
    expect(rows.nth(1)).to_have_class("marked")
    assert "at 0.7" in (points.nth(1).get_attribute("aria-label") or "")

    page.get_by_label("Cost by").select_option("bytes")
    expect(page.locator("[data-cost-name]")).to_have_text("File size")
    expect(rows.first).to_contain_text("kB")
    page.get_by_label("Cost by").select_option("macs")
    points.nth(0).focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/jobs/job_"))
    expect(page.get_by_role("heading", level=1)).to_have_text("at 0.4")


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]
)
def test_the_pages_of_batches_fit_and_are_quiet(
    open_page: OpenPage, shared_server: Service, batch: dict[str, Any], width: int, scheme: str
) -> None:
    page = open_page(width=width, color_scheme=scheme)
    for path in ("/batches", f"/batches/{batch['id']}"):
        page.goto(shared_server.url + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
