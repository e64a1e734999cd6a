"""The page of webhooks before a real receiver: added, tested, told of a job, deleted."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from standardwebhooks import Webhook

from tests.e2e.conftest import OpenPage, example_job, wait_for
from tests.support.processes import wait_until
from tests.support.receiver import Receiver, receiving
from tests.support.service import Service

SENT_MILLISECONDS = 30_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.mark.timeout(600)
def test_a_webhook_is_added_tested_told_of_a_job_and_deleted(
    open_page: OpenPage, shared_server: Service, receiver: Receiver
) -> None:
    page = open_page()
    page.goto(shared_server.url)
    page.get_by_role("link", name="Webhooks").click()
    page.get_by_label("Address").fill("no address")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".notice.bad")).to_contain_text("is no URL")
    expect(page.get_by_label("Address")).to_have_value("no address")
    page.get_by_label("Address").fill(receiver.url)
    page.get_by_label("What it is").fill("The alarm")
    page.get_by_role("button", name="Add", exact=True).click()
    verifier = Webhook(page.locator("#secret").inner_text())
    page.get_by_role("button", name="Send a test message").click()
    hook = page.locator(".hook", has_text="The alarm")
    expect(hook.locator("tbody tr").first).to_contain_text("Delivered", timeout=SENT_MILLISECONDS)
    expect(page.locator("#secret")).to_have_count(0)
    assert verifier.verify(receiver.last.body, receiver.last.headers)["type"] == "webhook.test"

    job = example_job(shared_server, training={"epochs": 0})
    wait_for(shared_server.client, f"/v1/jobs/{job['id']}", "succeeded", 300)
    wait_until(lambda: json.loads(receiver.last.body)["type"] == "job.succeeded", 30)
    told = verifier.verify(receiver.last.body, receiver.last.headers)
    assert told["data"]["id"] == job["id"]

    receiver.status = 500
    hook.get_by_role("button", name="Send a test").click()
    expect(hook.locator("tbody tr").first).to_contain_text("Given up", timeout=SENT_MILLISECONDS)
    expect(hook.locator("tbody tr").first).to_contain_text("The answer has the status 500.")
    hook.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="No webhooks yet")).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_page_fits_and_needs_no_scripts(
    open_page: OpenPage, shared_server: Service, receiver: Receiver, width: int, scheme: str
) -> None:
    page = open_page(width=width, color_scheme=scheme, java_script_enabled=False)
    page.goto(f"{shared_server.url}/webhooks")
    page.get_by_label("Address").fill(receiver.url)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Send a test message").click()
    wait_until(lambda: bool(receiver.received), 30)
    page.goto(f"{shared_server.url}/webhooks")
    # Playwright's own scripts run where the page's may not.
    assert page.locator("main").evaluate("e => e.ownerDocument.documentElement.scrollWidth") <= width
