"""Pictures of every page into docs/images: light, dark and at a phone's width, with the bundled example run.

    python scripts/screenshots.py URL SIGN_IN_LINK [FOLDER]

Needs a running service (`make run`), Debian's Chromium, and Playwright and Pillow from the dev requirements.
Pictures are WebP: a page takes 20 to 60 kB.
"""

import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
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
JOB_MILLISECONDS = 300_000
QUALITY = 82


@dataclass(frozen=True)
class Look:
    """One way to look at the pages."""

    name: str
    width: int
    height: int
    dark: bool = False


LOOKS = (Look("light", 1280, 800), Look("dark", 1280, 800, dark=True), Look("phone", 360, 740))


def save(page: Page, path: Path, *, whole: bool = True) -> None:
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole)))
    picture.convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)


def open_page(browser: Browser, look: Look) -> Page:
    context = browser.new_context(
        viewport={"width": look.width, "height": look.height}, color_scheme="dark" if look.dark else "light"
    )
    return context.new_page()


def run_example(page: Page, folder: Path) -> str:
    """Click the example, take a picture while it learns, and return the job's path once it is done."""
    page.get_by_role("button", name="Try the bundled example").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    page.locator("[data-chart=train_loss] canvas").wait_for(timeout=JOB_MILLISECONDS)
    page.wait_for_timeout(1500)  # a few points for the curve
    save(page, folder / "job-running-light.webp")
    page.locator("#now .succeeded").wait_for(timeout=JOB_MILLISECONDS)
    return re.sub(r"^https?://[^/]+", "", page.url)


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


def take(browser: Browser, look: Look, url: str, sign_in: str, folder: Path, job: str | None) -> str:
    page = open_page(browser, look)
    page.goto(url)
    save(page, folder / f"sign-in-{look.name}.webp")
    page.goto(sign_in)
    job = job or run_example(page, folder)
    for name in ("home", "jobs", "job", "models", "model", "datasets", "batches", "batch", "docs", "missing"):
        path = {"home": "/", "job": job, "model": "/models", "batch": "/batches", "missing": "/no-such-page"}
        page.goto(url + path.get(name, f"/{name}"))
        if name == "model":
            page.locator(".rows a.title").first.click()
            plan(page)
        if name == "batch":
            open_batch(page)
        page.wait_for_load_state("networkidle" if name == "docs" else "load")
        page.evaluate("document.fonts.ready")
        page.wait_for_timeout(400)  # curves are drawn in the next frame
        save(page, folder / f"{name}-{look.name}.webp", whole=name != "docs")
        if (name, look.name) == ("job", "light"):
            page.set_viewport_size({"width": look.width, "height": 940})
            save(page, folder / "job.webp", whole=False)  # the README's picture: what a visitor sees first
    page.context.close()
    return job


def main() -> int:
    if len(sys.argv) not in (3, 4):
        sys.stderr.write(__doc__ or "")
        return 2
    url, sign_in = sys.argv[1].rstrip("/"), sys.argv[2]
    folder = Path(sys.argv[3]) if len(sys.argv) == 4 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        job = None
        for look in LOOKS:
            job = take(browser, look, url, sign_in, folder, job)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
