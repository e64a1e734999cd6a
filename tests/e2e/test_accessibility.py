"""axe-core finds nothing serious on any page, light or dark, and no page jumps while it loads.

With BASISCONV_AXE_REPORT (`make axe-report`) what was found stands in that file afterwards.
States: signed out, a wrong key, everything empty, full, a job at work, refused fields, rejected and failed.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import EXAMPLES, OpenPage, _missing, example_job, wait_for
from tests.support.service import Service

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
MOST_SHIFT = 0.1  # the sum of layout shifts that counts as good
# Swagger's own part of /docs is theirs; our frame around it is looked at like every page.
RUN = """async () => {
  const found = await axe.run({ exclude: [["#swagger-ui"]] }, { resultTypes: ["violations"] });
  const all = found.violations.map((one) => ({
    impact: one.impact,
    id: one.id,
    told: [one.id, ...one.nodes.map((node) => `${node.target} ${node.failureSummary}`)].join("; "),
  }));
  return { version: found.testEngine.version, passed: found.passes.length, all };
}"""
GRAVE = ("serious", "critical")
SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });"""
LONG = {"epochs": 1000, "update": "all", "objective": "distill", "augment": "none"}
REPORT = "BASISCONV_AXE_REPORT"
_rows: list[str] = []  # of the report
_versions: set[str] = set()


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.is_file():
        _missing("axe-core is missing: `npm ci`")
    return AXE.read_text()


def look(page: Page, axe: str, state: str) -> None:
    """Judge the page as it stands, in both colour schemes."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.evaluate(axe)
        found = page.evaluate(RUN)
        grave = [one["told"] for one in found["all"] if one["impact"] in GRAVE]
        note(state, scheme, found, len(grave))
        assert grave == [], f"{state}, {scheme}"


def note(state: str, scheme: str, found: dict[str, Any], grave: int) -> None:
    """A row of the report."""
    where = re.sub(r"_[0-9a-z]{26}", "_…", re.sub(r"https?://[^/]+", "", state)) or "/"
    lesser = ", ".join(f"{one['id']} ({one['impact']})" for one in found["all"] if one["impact"] not in GRAVE)
    _rows.append(f"| {where} | {scheme} | {found['passed']} | {grave} | {lesser or 'none'} |")
    _versions.add(found["version"])


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    """Written at the end, where it is asked for."""
    yield
    said = (
        "Written by `make axe-report`: axe-core {} in Chromium, on every page of the real service in its "
        "states. Rules that hold, and those that are broken, by weight."
    )
    if path := os.environ.get(REPORT):
        head = [
            "# What axe-core finds on the pages",
            "",
            said.format(", ".join(_versions)),
            "",
            "| page | colours | rules that hold | serious or critical | lesser |",
            "|---|---|---:|---:|---|",
        ]
        Path(path).write_text("\n".join([*head, *_rows]) + "\n")


def visit(page: Page, url: str, axe: str) -> None:
    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_load_state("networkidle")
    shift = page.evaluate("window.shifted ?? 0")
    assert shift < MOST_SHIFT, f"{url} jumps by {shift}"
    look(page, axe, url)


@pytest.fixture
def full(shared_server: Service) -> dict[str, Any]:
    job = example_job(shared_server, training={"epochs": 1, "augment": "none"})
    return wait_for(shared_server.client, f"/v1/jobs/{job['id']}", "succeeded")


@pytest.fixture
def refused(shared_server: Service) -> dict[str, str]:
    """A network that the inspector rejected, and a job that failed."""
    whole = (EXAMPLES / "digits_cnn.onnx").read_bytes()
    file = {"file": ("half.onnx", whole[: len(whole) // 2])}
    model = shared_server.client.post("/v1/models", files=file).raise_for_status().json()
    wait_for(shared_server.client, f"/v1/models/{model['id']}", "rejected")
    impossible = {"compression": {"target": {"macs": 0.001}}, "training": {"epochs": 0}}
    job = example_job(shared_server, dataset=None, **impossible)
    wait_for(shared_server.client, f"/v1/jobs/{job['id']}", "failed")
    return {"model": model["id"], "job": job["id"]}


@pytest.fixture
def working(shared_server: Service) -> Iterator[str]:
    job = example_job(shared_server, training=LONG)
    yield job["id"]
    shared_server.client.post(f"/v1/jobs/{job['id']}/cancel")
    wait_for(shared_server.client, f"/v1/jobs/{job['id']}", "cancelled")


def test_pages_with_everything_on_them(
    open_page: OpenPage, shared_server: Service, full: dict[str, Any], axe: str
) -> None:
    page = open_page()
    page.add_init_script(SHIFTS)
    job, model = full["id"], full["model"]
    paths = [
        "/",
        f"/?job={job}",
        "/jobs",
        f"/jobs/{job}",
        "/models",
        f"/models/{model}",
        "/datasets",
        "/docs",
    ]
    for path in (*paths, f"/models/{model}/compare", "/batches", "/nothing-here"):
        visit(page, shared_server.url + path, axe)


def test_the_report(open_page: OpenPage, shared_server: Service, full: dict[str, Any], axe: str) -> None:
    page = open_page(bypass_csp=True)  # which forbids every script, axe's too
    page.goto(f"{shared_server.url}/v1/jobs/{full['id']}/report")
    look(page, axe, "report")


def test_pages_with_nothing_on_them(open_page: OpenPage, shared_server: Service, axe: str) -> None:
    body = {"name": "newcomer", "owner": "new"}
    key = shared_server.client.post("/v1/keys", json=body).raise_for_status().json()["key"]
    page = open_page(signed_in=False)
    page.add_init_script(SHIFTS)
    visit(page, shared_server.url, axe)
    page.get_by_label("API key").fill("bc_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    look(page, axe, "wrong key")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    for path in ("/", "/jobs", "/models", "/datasets", "/batches", "/compare"):
        visit(page, shared_server.url + path, axe)


def test_pages_that_tell_of_problems(
    open_page: OpenPage, shared_server: Service, refused: dict[str, str], axe: str
) -> None:
    page = open_page()
    page.add_init_script(SHIFTS)
    for path in (f"/models/{refused['model']}", "/models", f"/jobs/{refused['job']}", "/jobs"):
        visit(page, shared_server.url + path, axe)
    page.goto(shared_server.url)
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#model-problem")).to_be_visible()
    page.get_by_text("More choices").click()
    look(page, axe, "a form that was refused")


def test_a_job_at_work(open_page: OpenPage, shared_server: Service, working: str, axe: str) -> None:
    page = open_page(width=360)
    page.goto(f"{shared_server.url}/jobs/{working}")
    expect(page.locator("[data-chart=train_loss] canvas")).to_be_visible(timeout=90_000)
    page.locator("[data-chart=train_loss]").get_by_text("As numbers").click()
    look(page, axe, "a job at work")


def test_a_planned_network(
    open_page: OpenPage, shared_server: Service, full: dict[str, Any], axe: str
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/models/{full['model']}")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.locator("#planned")).to_be_visible(timeout=90_000)
    look(page, axe, "a plan")
