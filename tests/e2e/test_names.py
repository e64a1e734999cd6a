"""Names that users gave, in a real browser: they are text on every page, and nothing in them runs."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.core.unit import Services
from app.main import build_services
from tests.api.seeds import RESULT, add_artifact, add_dataset, add_job, add_model
from tests.e2e.conftest import OpenPage
from tests.support.service import Service

RUNS = "document.title='owned';window.owned=1"
NAME = f'<img src=x onerror="{RUNS}"><svg onload="{RUNS}"></title><script>{RUNS}</script>\'"{{{{7*7}}}}'
LONG = "y" * 10_000  # a layer's name, which the file chooses
PATHS = (
    "/",
    "/models",
    "/models/{model}",
    "/datasets",
    "/jobs",
    "/jobs/{job}",
    "/jobs/{failed}",
    "/v1/jobs/{job}/report",
    "/v1/jobs/{failed}/report",
)
NO_PATHS = (f"/nothing/{quote(NAME)}", f"/jobs/{quote(NAME, safe='')}")


@pytest.fixture(scope="module")
def ids(shared_server: Service) -> Iterator[dict[str, str]]:
    """Rows whose every text is markup, also those that no request could have brought in."""
    services = build_services(shared_server.settings)
    yield _seed(services, shared_server.client.get("/v1/usage").json()["owner"])
    services.publisher.close()
    services.engine.dispose()


def _seed(services: Services, owner: str) -> dict[str, str]:
    table: dict[str, Any] = {
        "name": NAME, "kind": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": [3, 3],
        "stride": [1, 1], "groups": 1, "output_size": [1, 1], "macs": 9, "params": 9, "max_rank": 1,
        "break_even_rank": 1, "compressible": True, "reason": NAME,
    }  # fmt: skip
    layers = [table, table | {"name": LONG}]
    model = add_model(services, owner, name=NAME, layers=layers, details={"input": NAME})
    dataset = add_dataset(services, owner, name=NAME, details={"class_names": [NAME]})
    done = {"name": NAME, "form": "basis", "rank": 1, "replaced": True, "reason": None, "error": 0.1}
    kept = done | {"name": LONG, "form": None, "rank": None, "replaced": False, "reason": NAME}
    warnings = [{"code": "x", "detail": NAME, "layer": NAME}]
    common: dict[str, Any] = {"dataset_id": dataset, "name": NAME, "annotations": {NAME: NAME}}
    result = RESULT | {"layers": [done, kept], "device": NAME}
    job = add_job(
        services, model, owner, status="succeeded", result=result, warnings=warnings, stage="verify", **common
    )
    error = {
        "type": "x",
        "title": NAME,
        "status": 422,
        "detail": NAME,
        "code": NAME,
        "hint": NAME,
        "layer": NAME,
    }
    failed = add_job(services, model, owner, status="failed", error=error, **common)
    add_artifact(services, job, b"x", owner_id=owner, name=NAME)
    return {"model": model, "dataset": dataset, "job": job, "failed": failed}


def test_a_name_is_text_on_every_page_and_runs_nowhere(
    open_page: OpenPage, shared_server: Service, ids: dict[str, str]
) -> None:
    page = open_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for path in (*(path.format(**ids) for path in PATHS), *NO_PATHS):
        page.goto(shared_server.url + path)
        page.wait_for_load_state("load")
        assert page.evaluate("window.owned") is None, path
        assert page.title() != "owned", path
        assert page.locator("img, svg[onload], body script:not([src])").count() == 0, path
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    assert dialogs == []


def test_the_names_are_shown_as_they_were_given(
    open_page: OpenPage, shared_server: Service, ids: dict[str, str]
) -> None:
    page = open_page()
    for path in ("/models", f"/models/{ids['model']}", "/datasets", f"/jobs/{ids['job']}"):
        page.goto(shared_server.url + path)
        assert NAME in page.locator("body").inner_text(), path


def test_a_chosen_files_name_is_text_in_the_form(open_page: OpenPage, shared_server: Service) -> None:
    page = open_page()
    page.goto(shared_server.url)
    name = f'<img src=x onerror="{RUNS}">.onnx'
    page.set_input_files("#model", {"name": name, "mimeType": "application/octet-stream", "buffer": b"x"})
    assert name in page.locator("#model-drop").inner_text()
    assert page.locator("#model-drop img").count() == 0
    assert page.evaluate("window.owned") is None


def test_a_download_is_saved_under_its_name(
    open_page: OpenPage, shared_server: Service, ids: dict[str, str]
) -> None:
    page = open_page()
    page.goto(f"{shared_server.url}/jobs/{ids['job']}")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").first.click()
    saved = started.value.suggested_filename
    assert "/" not in saved
    assert saved.startswith(("<img", "_img"))


def test_a_frame_on_another_site_shows_nothing(open_page: OpenPage, shared_server: Service) -> None:
    page = open_page()
    answer = page.context.request.get(
        f"{shared_server.url}/jobs",
        headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    )
    assert answer.status == 403
