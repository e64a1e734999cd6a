"""Pictures of every page and state: light, dark and at a phone's width, with the bundled example run.

    python scripts/screenshots.py URL SIGN_IN_LINK [FOLDER]

Needs a running service that may send webhooks to this machine
(`BASISCONV_WEBHOOK_PRIVATE_ADDRESSES=true make run`), Debian's Chromium, and Playwright and Pillow from the
dev requirements.
Without FOLDER the few that the documentation shows go to docs/images; a folder gets all of them, to be looked
at. Pictures are WebP: a page takes 20 to 200 kB.
"""

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "images"
EXAMPLE = ROOT / "examples" / "digits_cnn.onnx"
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
JOB_MILLISECONDS = 900_000  # a batch of seven jobs on a busy machine
QUALITY = 65


@dataclass(frozen=True)
class Look:
    """One way to look at the pages."""

    name: str
    width: int
    height: int
    dark: bool = False


KEPT = {
    "batch-light",
    "compare-dark",
    "compare-light",
    "home-light",
    "home-phone",
    "job",
    "job-dark",
    "job-phone",
    "job-running-light",
    "model-light",
    "report-light",
    "sign-in-light",
    "webhooks-light",
}
LOOKS = (Look("light", 1280, 800), Look("dark", 1280, 800, dark=True), Look("phone", 360, 740))


@dataclass(frozen=True)
class Album:
    """Where pictures go, and whether only the documentation's own are kept."""

    folder: Path
    everything: bool

    def save(self, page: Page, name: str, *, whole: bool = True) -> None:
        if not self.everything and name not in KEPT:
            return
        picture = Image.open(io.BytesIO(page.screenshot(full_page=whole)))
        path = self.folder / f"{name}.webp"
        picture.convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)


def open_page(browser: Browser, look: Look) -> Page:
    context = browser.new_context(
        viewport={"width": look.width, "height": look.height}, color_scheme="dark" if look.dark else "light"
    )
    return context.new_page()


def run_example(page: Page, album: Album) -> str:
    """Click the example, take a picture while it learns, and return the job's path once it is done."""
    page.get_by_role("button", name="Try the bundled example").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    page.locator("[data-chart=train_loss] canvas").wait_for(timeout=JOB_MILLISECONDS)
    page.wait_for_timeout(1500)  # a few points for the curve
    album.save(page, "job-running-light")
    page.locator("#now .succeeded").wait_for(timeout=JOB_MILLISECONDS)
    return re.sub(r"^https?://[^/]+", "", page.url)


def call(page: Page, method: str, path: str, body: object = None) -> Any:
    """The REST interface with the page's own session."""
    return page.evaluate(
        """async ([method, path, body]) => {
          const headers = { "Content-Type": "application/json" };
          const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
          return answer.json();
        }""",
        [method, path, body],
    )


def make_failures(page: Page, job: str) -> dict[str, str]:
    """A job whose target nobody can meet, and a network that is none."""
    model = call(page, "GET", f"/v1{job}")["model"]
    body = {"model": model, "name": "Far too small", "compression": {"target": {"macs": 0.001}}}
    failed = call(page, "POST", "/v1/jobs", body)
    page.goto(f"{page.url.split('/jobs')[0]}/jobs/{failed['id']}")
    page.locator("#now .failed").wait_for(timeout=JOB_MILLISECONDS)
    half = (EXAMPLE.read_bytes())[:20_000]
    rejected = page.evaluate(
        """async (data) => {
          const form = new FormData();
          form.append("file", new File([new Uint8Array(data)], "cut-off.onnx"));
          return (await fetch("/v1/models", { method: "POST", body: form })).json();
        }""",
        list(half),
    )
    return {"failed": f"/jobs/{failed['id']}", "rejected": f"/models/{rejected['id']}"}


def newcomer(page: Page, browser: Browser, look: Look, url: str, album: Album) -> None:
    """Every list while it is empty, as somebody sees it who has nothing yet."""
    key = call(page, "POST", "/v1/keys", {"name": "newcomer", "owner": "new"})["key"]
    other = open_page(browser, look)
    other.goto(url)
    other.get_by_label("API key").fill("bc_wrong")
    other.get_by_role("button", name="Sign in").click()
    album.save(other, f"sign-in-wrong-{look.name}")
    other.get_by_label("API key").fill(key)
    other.get_by_role("button", name="Sign in").click()
    for name in ("home", "jobs", "models", "datasets", "batches", "compare", "webhooks"):
        other.goto(f"{url}/{'' if name == 'home' else name}")
        other.evaluate("document.fonts.ready")
        album.save(other, f"{name}-empty-{look.name}")
    other.context.close()


def plan(page: Page) -> None:
    """The network's page with a plan on it; after the first look it is there by itself."""
    page.wait_for_load_state("networkidle")
    if page.locator("#planned").is_hidden():
        page.get_by_role("button", name="Plan", exact=True).click()
    page.locator("#sensitivity canvas").wait_for(timeout=JOB_MILLISECONDS)


def open_batch(page: Page) -> None:
    """The newest batch, started if there is none, once all its points are drawn."""
    if page.locator(".rows a.title").count() == 0:
        page.get_by_label("Images").select_option(index=1)
        page.get_by_label("In per cent").fill("20, 30, 40, 50, 60, 70, 80")
        page.get_by_label("Name of the batch").first.fill("Seven sizes")
        page.get_by_role("button", name="Start the batch").click()
    else:
        page.locator(".rows a.title").first.click()
    page.locator("#batch .status.completed").wait_for(timeout=JOB_MILLISECONDS)
    page.locator("[data-points] a").nth(7).wait_for()
    page.locator("#jobs .status:not(.succeeded)").first.wait_for(state="detached")  # asked for by itself


@contextmanager
def receiver() -> Iterator[str]:
    """Somebody who takes webhooks; the address, until the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/basisconv"
    finally:
        server.shutdown()
        server.server_close()


def add_webhooks(page: Page, receiving: str) -> None:
    """One that hears of all that follows, and one at an address where nobody is."""
    for url, words in ((receiving, "Nightly builds"), ("http://127.0.0.1:9/hook", "The old build server")):
        hook = call(page, "POST", "/v1/webhooks", {"url": url, "events": EVENTS, "description": words})
        call(page, "POST", f"/v1/webhooks/{hook['id']}/test")


def add_webhook(page: Page) -> None:
    """The page that shows a secret; the webhook is gone again before the next picture."""
    page.get_by_label("Address").fill("https://example.com/hooks/basisconv")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("#secret").wait_for()


def refuse_webhook(page: Page) -> None:
    page.get_by_label("Address").fill("no address")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator(".notice.bad").wait_for()


def delete_webhook(page: Page) -> None:
    """The newest, which a picture made."""
    newest = call(page, "GET", "/v1/webhooks?limit=1")["data"][0]
    page.evaluate("path => fetch(path, { method: 'DELETE' })", f"/v1/webhooks/{newest['id']}")


def compare_some(page: Page) -> None:
    """A few chosen runs."""
    rows = call(page, "GET", "/v1/jobs?status=succeeded&limit=3")["data"]
    page.goto(f"{origin(page)}/compare?{'&'.join('job=' + row['id'] for row in rows)}")


def open_operation(page: Page) -> None:
    page.locator("#operations-jobs-create_job_v1_jobs_post .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()


def origin(page: Page) -> str:
    parts = urlsplit(page.url)
    return f"{parts.scheme}://{parts.netloc}"


def refuse(page: Page) -> None:
    page.get_by_role("button", name="Compress").click()


def choose_other(page: Page) -> None:
    page.get_by_label("Other targets").check()
    page.get_by_text("More choices").click()


def open_first(page: Page) -> None:
    """The network of the example: the one that could be read."""
    page.locator(".row", has=page.locator(".ready")).locator("a.title").first.click()
    plan(page)


ACTS: dict[str, Callable[[Page], None]] = {
    "home-other": choose_other,
    "home-refused": refuse,
    "model": open_first,
    "batch": open_batch,
    "compare-some": compare_some,
    "webhooks-new": add_webhook,
    "webhooks-refused": refuse_webhook,
    "docs-open": open_operation,
}
AFTERWARDS: dict[str, Callable[[Page], None]] = {"webhooks-new": delete_webhook}
EVENTS = ["job.succeeded", "job.failed", "batch.completed"]

# What each picture has to show: a test compares these with the pages that there are.
ROUTES = {
    "home": "/",
    "home-other": "/",
    "home-refused": "/",
    "home-again": "/",
    "jobs": "/jobs",
    "job": "/jobs/{job_id}",
    "job-failed": "/jobs/{job_id}",
    "models": "/models",
    "model": "/models/{model_id}",
    "model-rejected": "/models/{model_id}",
    "datasets": "/datasets",
    "batches": "/batches",
    "batch": "/batches/{batch_id}",
    "compare": "/models/{model_id}/compare",
    "compare-some": "/compare",
    "webhooks": "/webhooks",
    "webhooks-new": "/webhooks",
    "webhooks-refused": "/webhooks",
    "report": "/v1/jobs/{job_id}/report",
    "docs": "/docs",
    "docs-open": "/docs",
    "missing": "/{anything}",
}


def paths_of(job: str, model: str, failures: dict[str, str]) -> dict[str, str]:
    """Every page by the name of its picture, in the order in which they are taken."""
    return {
        "home": "/",
        "home-other": "/",
        "home-refused": "/",
        "home-again": f"/?job={job.rsplit('/', 1)[1]}",
        "jobs": "/jobs",
        "job": job,
        "job-failed": failures["failed"],
        "models": "/models",
        "model": "/models",
        "model-rejected": failures["rejected"],
        "datasets": "/datasets",
        "batches": "/batches",
        "batch": "/batches",
        "compare": f"/models/{model}/compare",
        "compare-some": "/jobs",
        "webhooks": "/webhooks",
        "webhooks-new": "/webhooks",
        "webhooks-refused": "/webhooks",
        "report": f"/v1{job}/report",
        "docs": "/docs",
        "docs-open": "/docs",
        "missing": "/no-such-page",
    }


def shows(route: str, url: str) -> bool:
    """Whether an address is one of this page's."""
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), urlsplit(url).path) is not None


def take_page(page: Page, name: str, look: Look, album: Album) -> None:
    if name in ACTS:
        ACTS[name](page)
    if not shows(ROUTES[name], page.url):
        raise RuntimeError(f"{name} should show {ROUTES[name]}, and shows {page.url}")
    rest = ROUTES[name] == "/docs"
    page.wait_for_load_state("networkidle" if rest else "load")
    page.wait_for_timeout(600)  # fonts, then curves in the next frame
    album.save(page, f"{name}-{look.name}", whole=not rest)
    if (name, look.name) == ("job", "light"):
        page.set_viewport_size({"width": look.width, "height": 940})
        album.save(page, "job", whole=False)  # the README's picture: what a visitor sees first
        page.set_viewport_size({"width": look.width, "height": look.height})
    if name in AFTERWARDS:
        AFTERWARDS[name](page)


def take(
    browser: Browser, look: Look, url: str, sign_in: str, album: Album, made: dict[str, str], receiving: str
) -> dict[str, str]:
    page = open_page(browser, look)
    page.goto(url)
    album.save(page, f"sign-in-{look.name}")
    page.goto(sign_in)
    if not made:
        add_webhooks(page, receiving)
        job = run_example(page, album)
        made = {"job": job, "model": call(page, "GET", f"/v1{job}")["model"]} | make_failures(page, job)
    newcomer(page, browser, look, url, album)
    for name, path in paths_of(made["job"], made["model"], made).items():
        page.goto(url + path)
        take_page(page, name, look, album)
    page.context.close()
    return made


def main() -> int:
    if len(sys.argv) not in (3, 4):
        sys.stderr.write(__doc__ or "")
        return 2
    url, sign_in = sys.argv[1].rstrip("/"), sys.argv[2]
    folder = Path(sys.argv[3]) if len(sys.argv) == 4 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, receiver() as receiving:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        made: dict[str, str] = {}
        for look in LOOKS:
            album = Album(folder, len(sys.argv) == 4)
            made = take(browser, look, url, sign_in, album, made, receiving)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
