"""The main job in the browser: from the sign-in link to files on the user's own disk."""

import hashlib
import io
import itertools
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.conftest import EXAMPLES, JOB_MILLISECONDS, OpenPage, drop, example_job, ready_example
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.worker.networks import small_cnn

LONG = {"epochs": 1000, "update": "all", "objective": "distill", "augment": "none"}


def test_the_sign_in_link_leads_to_the_form_and_leaves_the_address(
    open_page: OpenPage, shared_server: Service
) -> None:
    page = open_page(signed_in=False)
    page.goto(shared_server.sign_in_url)
    expect(page).to_have_url(f"{shared_server.url}/")
    expect(page.get_by_role("button", name="Compress")).to_be_visible()


def test_a_stranger_is_told_where_the_link_and_the_key_are_and_signs_in_with_the_key(
    open_page: OpenPage, shared_server: Service
) -> None:
    page = open_page(signed_in=False)
    page.goto(f"{shared_server.url}/jobs")
    expect(page.get_by_text("var/api-key")).to_be_visible()
    page.get_by_label("API key").fill("bc_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.get_by_label("API key").fill(shared_server.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Make a trained network smaller")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_one_click_compresses_the_bundled_example_and_gives_files_that_are_what_they_say(
    open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page()
    page.get_by_role("button", name="Try the bundled example").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    expect(page.locator("#now")).to_contain_text("Finished", timeout=JOB_MILLISECONDS)
    rows = page.get_by_role("region", name="Before and after").get_by_role("row")
    expect(rows.filter(has_text="Accuracy")).to_have_count(1)
    expect(rows.filter(has_text="Operations")).to_have_count(1)
    expect(page.locator("[data-chart=train_loss] canvas")).to_be_visible()
    expect(page.locator(".stages .done")).to_have_count(6)
    expect(page.locator("table.layers tbody tr:not(.kept)").first).to_contain_text("then")
    expect(page.locator("[data-chart=accuracy] .ref")).to_be_visible()

    line = page.locator(".files > li").filter(has_text=".onnx")
    with page.expect_download() as downloading:
        line.get_by_role("link", name="Download").click()
    target = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(target)
    assert target.suffix == ".onnx"
    onnx.checker.check_model(onnx.load(target))
    assert hashlib.sha256(target.read_bytes()).hexdigest() == line.locator(".hash").inner_text()


def test_dropped_files_are_uploaded_inspected_and_compressed_with_the_chosen_parameters(
    open_page: OpenPage, shared_server: Service
) -> None:
    page = open_page()
    drop(page, "#model-drop", EXAMPLES / "digits_cnn.pt2")
    drop(page, "#dataset-drop", EXAMPLES / "digits.npz")
    expect(page.locator("#model-drop")).to_contain_text("digits_cnn.pt2")
    expect(page.locator("#dataset-drop")).to_contain_text("digits.npz")
    page.get_by_label("Pixel values it was trained on").select_option("custom")
    page.get_by_label("Mean per channel").fill("0.3054")
    page.get_by_label("Deviation per channel").fill("0.3760")
    page.get_by_label("Share to keep").fill("70")
    page.get_by_label("Fine-tune for").select_option("0")
    page.get_by_text("More choices").click()
    page.get_by_label("Name of the job").fill("By <b>hand</b>")
    page.get_by_label("Layers to leave alone").fill("stem*")
    page.get_by_label("ONNX", exact=True).uncheck()
    page.get_by_label("safetensors").uncheck()
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    expect(page.get_by_role("heading", level=1)).to_have_text("By <b>hand</b>")
    expect(page.locator("#now")).to_contain_text("Finished", timeout=JOB_MILLISECONDS)
    job = shared_server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    assert job["compression"]["target"]["macs"] == 0.7
    assert job["compression"]["layers"]["exclude"] == ["stem*"]
    assert job["training"]["epochs"] == 0
    assert job["exports"] == ["pt2"]
    assert job["result"]["original"]["accuracy"] > 0.9  # the normalisation arrived
    model = shared_server.client.get(f"/v1/models/{job['model']}").json()
    assert model["input"]["mean"] == [0.3054]


def _photographs(path: Path, folders: list[str]) -> Path:
    """A zip of class folders with JPEGs of mixed sizes."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for folder, number in itertools.product(folders, range(12)):
            sides = (20 + number, 34 - number, 3)
            image = Image.fromarray(random.integers(0, 256, sides, dtype=np.uint8))
            memory = io.BytesIO()
            image.save(memory, "JPEG")
            archive.writestr(f"{folder}/{number}.jpg", memory.getvalue())
    return path


def test_photographs_of_mixed_sizes_are_resized_cropped_and_numbered_as_the_form_says(
    open_page: OpenPage, shared_server: Service, tmp_path: Path
) -> None:
    network = tmp_path / "small.onnx"
    network.write_bytes(small_cnn())
    page = open_page()
    page.locator("#model").set_input_files(network)
    page.locator("#dataset").set_input_files(_photographs(tmp_path / "photos.zip", ["ant", "bee"]))
    page.get_by_label("Resize the shorter side to").fill("20")
    page.get_by_label("then crop the centre to").fill("16")
    page.get_by_text("The network numbers its classes differently").click()
    page.get_by_label("Class of each folder").fill("ant = 7\nbee = 2")
    page.get_by_label("Fine-tune for").select_option("0")
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    expect(page.locator("#now")).to_contain_text("Finished", timeout=JOB_MILLISECONDS)
    job = shared_server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    model = shared_server.client.get(f"/v1/models/{job['model']}").json()
    data = shared_server.client.get(f"/v1/datasets/{job['dataset']}").json()
    assert (model["input"]["resize"], model["input"]["crop"]) == (20, 16)
    assert data["classes"] == 8  # numbered up to 7
    assert data["image"] is None  # the sizes are mixed


def test_a_running_job_is_cancelled_from_its_page(open_page: OpenPage, shared_server: Service) -> None:
    job = example_job(shared_server, training=LONG)
    page = open_page()
    page.goto(f"{shared_server.url}/jobs/{job['id']}")
    expect(page.locator(".stages [aria-current=step]")).to_contain_text("Fine-tune", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#now")).to_contain_text("Cancelled", timeout=JOB_MILLISECONDS)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


@pytest.mark.slow
def test_the_page_goes_on_by_itself_after_the_web_process_was_restarted(
    open_page: OpenPage, shared_server: Service
) -> None:
    job = example_job(shared_server, training=LONG)
    page = open_page()
    page.goto(f"{shared_server.url}/jobs/{job['id']}")
    expect(page.locator("[data-chart=train_loss] canvas")).to_be_visible(timeout=60_000)
    shared_server.web.stop()
    shared_server.web.start()
    wait_until(shared_server.web.is_ready, 30)
    shared_server.client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    expect(page.locator("#now")).to_contain_text("Cancelled", timeout=JOB_MILLISECONDS)


def test_a_job_is_sent_with_the_keyboard_alone(open_page: OpenPage, shared_server: Service) -> None:
    ready_example(shared_server)
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for selector, keys in (
        ("#model-id", ["ArrowDown"]),
        ("#share", ["ArrowLeft"] * 5),
        ("#more summary", ["Enter"]),
        ("#job-name", []),
    ):
        _tab_to(page, selector)
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.type("By keyboard")
    _tab_to(page, "#go")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    expect(page.get_by_role("heading", level=1)).to_have_text("By keyboard")
    expect(page.locator(".lead")).to_contain_text("55 % of the operations")


def _tab_to(page: Page, selector: str) -> None:
    """Press Tab until the control has the focus, and see that it shows."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert shown != "none", f"{selector} does not show its focus"
            return
    raise AssertionError(f"{selector} is not reached by Tab")
