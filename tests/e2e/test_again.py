"""A job's page after the end: sums to copy, numbers behind curves, and the same job with changes."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import EXAMPLES, OpenPage, example_job, wait_for
from tests.support.service import Service

TRAINING = {"epochs": 2, "augment": "none", "seed": 7, "batch_size": 64}


@pytest.fixture(scope="module")
def finished(shared_server: Service) -> dict[str, Any]:
    compression = {"target": {"macs": 0.625}, "layers": {"include": ["*"], "exclude": ["stem"]}}
    job = example_job(
        shared_server, name="Digits <i>once</i>", training=TRAINING, compression=compression, exports=["onnx"]
    )
    return wait_for(shared_server.client, f"/v1/jobs/{job['id']}", "succeeded")


def test_a_files_sum_is_copied_by_its_button(
    open_page: OpenPage, shared_server: Service, finished: dict[str, Any]
) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{shared_server.url}/jobs/{finished['id']}")
    page.get_by_role("button", name=re.compile(r"the SHA-256 of .*\.onnx")).click()
    [export] = finished["result"]["exports"]
    assert page.evaluate("navigator.clipboard.readText()") == export["sha256"]
    expect(page.locator("#said")).to_have_text("Copied")


def test_every_chart_has_its_numbers_beside_it(
    open_page: OpenPage, shared_server: Service, finished: dict[str, Any]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/jobs/{finished['id']}")
    layers = finished["result"]["layers"]
    expect(page.locator("svg.columns g")).to_have_count(len(layers))
    expect(page.get_by_role("table", name="One image at a time").get_by_role("row")).to_have_count(2)
    figures = finished["result"]["compressed"]
    assert figures["latency_spread_ms"]["batch_1"] >= 0
    chart = page.locator("[data-chart=accuracy]")
    expect(chart.locator("canvas")).to_be_visible()
    chart.get_by_text("As numbers").click()
    rows = chart.get_by_role("table").locator("tbody tr")
    expect(rows.nth(1)).to_contain_text("%")  # the curve's points come after the page
    expect(rows.first).to_contain_text("%")


def test_a_job_runs_again_with_one_change_and_keeps_what_no_field_shows(
    open_page: OpenPage, shared_server: Service, finished: dict[str, Any]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/jobs/{finished['id']}")
    page.get_by_role("link", name="Run again with changes").click()
    expect(page.locator("#again-rest")).to_contain_text("batches of 64, images as they are, seed 7")
    expect(page.locator("#share-out")).to_have_text("62.5 %")
    page.get_by_text("More choices").click()
    expect(page.get_by_label("Name of the job")).to_have_value("Digits <i>once</i>")
    page.get_by_label("Fine-tune for").select_option("1")
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url(re.compile("/jobs/job_"))
    again = shared_server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    assert again["id"] != finished["id"]
    assert again["training"] == finished["training"] | {"epochs": 1}
    for name in ("model", "dataset", "compression", "limits", "exports", "name"):
        assert again[name] == finished[name], name


def test_the_report_is_one_file_that_asks_for_nothing_and_prints(
    browser: Browser, shared_server: Service, finished: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(shared_server.client.get(f"/v1/jobs/{finished['id']}/report").content)
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(file.as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("Digits <i>once</i>")
    expect(page.get_by_role("img").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('svg .rank')).fill") != "rgb(0, 0, 0)"
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.pdf().startswith(b"%PDF")
    assert (asked, complaints) == ([file.as_uri()], [])
    page.close()


def test_a_file_above_the_limit_is_refused_before_it_is_sent(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate("document.getElementById('compress').setAttribute('data-max-model', '1000')")
    page.locator("#model").set_input_files(EXAMPLES / "digits_cnn.onnx")
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#model-problem")).to_contain_text("the limit is 1.00 kB")
