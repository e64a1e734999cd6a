"""A real Chromium before the real service. Every page is watched: what it logs and whom it asks."""

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.support.service import Service

# Chromium's own errands (updates, QUIC probes) would show as traffic to strangers.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
JOB_MILLISECONDS = 90_000
STEP_MILLISECONDS = 15_000  # generous: two cores may be busy with other tests
VENDOR = Path(__file__).resolve().parents[2] / "app" / "web" / "static" / "vendor"


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; in CI the browser tests must run")
    pytest.skip(what)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder needs the browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _missing("Chromium is missing: `apt-get install chromium`")
    if not (VENDOR / "htmx" / "htmx.min.js").is_file():
        _missing("the pages' packages are missing: `npm ci && python scripts/vendor_js.py`")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Watched:
    """A page and what went wrong on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def watch(self, origin: str) -> None:
        def logged(message: ConsoleMessage) -> None:
            # A refused request is logged by the browser itself; the tests look at those through the page.
            if message.type == "error" and "Failed to load resource" not in message.text:
                self.complaints.append(f"{self.page.url}: {message.text}")

        def asked(request: Any) -> None:
            if request.url.startswith(("data:", "blob:")):
                return
            if urlsplit(request.url).netloc != origin:
                self.complaints.append(f"{self.page.url} asked {request.url}")

        self.page.on("console", logged)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))
        self.page.on("request", asked)


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, shared_server: Service) -> Iterator[OpenPage]:
    """`open_page(width=…, color_scheme=…)`: a fresh browser profile, signed in unless told otherwise.

    At the end no page may have logged an error, broken the content policy or asked another server.
    """
    opened: list[Watched] = []
    contexts: list[BrowserContext] = []

    def start(*, signed_in: bool = True, width: int = 1280, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(STEP_MILLISECONDS)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.watch(urlsplit(shared_server.url).netloc)
        opened.append(watched)
        if signed_in:
            sign_in(context, shared_server)
            watched.page.goto(shared_server.url)
        return watched.page

    yield start
    for context in contexts:
        context.close()
    assert [complaint for watched in opened for complaint in watched.complaints] == []


def sign_in(context: BrowserContext, service: Service) -> None:
    """The session of the service's key, as the sign-in page gives it."""
    answer = context.request.post(f"{service.url}/sign-in", form={"key": service.key})
    assert answer.ok, answer.text()


def drop(page: Page, box: str, file: Path) -> None:
    """Let a real file fall onto a box, as the browser's own events tell it."""
    data = base64.b64encode(file.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([name, data]) => {
          const transfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          transfer.items.add(new File([bytes], name));
          return transfer;
        }""",
        [file.name, data],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(box, event, {"dataTransfer": transfer})


def wait_for(client: httpx.Client, path: str, wanted: str, seconds: float = 90) -> dict[str, Any]:
    """Poll a resource until it has this status; any other final one fails the test with its error."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = client.get(path).raise_for_status().json()
        if found["status"] == wanted:
            return found
        assert found["status"] not in {"rejected", "failed", "cancelled", "succeeded"}, found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def ready_example(service: Service) -> dict[str, Any]:
    """The bundled example, uploaded by the page's own route and inspected; the second time at once."""
    headers = {"Accept": "application/json"}
    sent: dict[str, Any] = service.client.post("/example", headers=headers).raise_for_status().json()
    wait_for(service.client, f"/v1/models/{sent['model']}", "ready")
    wait_for(service.client, f"/v1/datasets/{sent['dataset']}", "ready")
    return sent


def example_job(service: Service, **changed: Any) -> dict[str, Any]:
    """The bundled example as a job."""
    body = ready_example(service)["job"] | changed
    job: dict[str, Any] = service.client.post("/v1/jobs", json=body).raise_for_status().json()
    return job
