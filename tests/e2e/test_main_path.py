"""The main job in the browser: from the sign-in link to files on the user's own disk."""

import base64
import hashlib
import io
import itertools
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.conftest import EXAMPLES, OpenPage, example_job, ready_example
from tests.support.networks import CifarResNet
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.worker.networks import small_cnn

JOB_MILLISECONDS = 90_000
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


def _drop(page: Page, box: str, file: Path) -> None:
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


def test_dropped_files_are_uploaded_inspected_and_compressed_with_the_chosen_parameters(
    open_page: OpenPage, shared_server: Service
) -> None:
    page = open_page()
    _drop(page, "#model-drop", EXAMPLES / "digits_cnn.pt2")
    _drop(page, "#dataset-drop", EXAMPLES / "digits.npz")
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


def test_random_filters_train_the_structure_from_scratch(open_page: OpenPage, shared_server: Service) -> None:
    page = open_page()
    _drop(page, "#model-drop", EXAMPLES / "digits_cnn.pt2")
    _drop(page, "#dataset-drop", EXAMPLES / "digits.npz")
    page.get_by_label("Fine-tune for").select_option("1")
    page.get_by_text("More choices").click()
    page.get_by_label("Basis from").select_option("random")
    expect(page.get_by_text("own weights are not used")).to_be_visible()
    expect(page.get_by_label("Learns from")).to_be_disabled()
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    expect(page.locator(".lead")).to_contain_text("From scratch, 60")
    expect(page.locator("#now")).to_contain_text("Finished", timeout=JOB_MILLISECONDS)
    expect(page.get_by_role("columnheader", name="Untrained")).to_be_visible()
    job = shared_server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    assert (job["kind"], job["compression"]["basis"]) == ("train", "random")
    assert job["result"]["compressed"]["macs"] <= 0.6 * job["result"]["original"]["macs"]


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


def test_weights_alone_become_a_network_by_the_architecture_that_is_chosen(
    open_page: OpenPage, shared_server: Service, tmp_path: Path
) -> None:
    weights = tmp_path / "epoch_164.safetensors"
    safetensors.torch.save_file(CifarResNet(20, 7, "A").state_dict(), weights)
    page = open_page()
    architecture = page.get_by_label("Network that the weights are of")
    expect(architecture).to_be_hidden()
    page.locator("#model").set_input_files(weights)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#model-problem")).to_contain_text("Choose the network that the weights are of")
    expect(architecture).to_be_focused()
    assert "POST" not in sent

    architecture.select_option("cifar_resnet20")
    page.get_by_text("More choices").click()
    page.get_by_label("Basis from").select_option("weights")  # nothing is measured: the job takes no time
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    job = shared_server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    model = shared_server.client.get(f"/v1/models/{job['model']}").json()
    assert (model["status"], model["architecture"]) == ("ready", "cifar_resnet20")
    assert model["summary"]["outputs"] == [7]
    expect(page.locator("#now")).to_contain_text("Finished", timeout=JOB_MILLISECONDS)
    expect(page.locator(".files > li").filter(has_text=".onnx")).to_have_count(1)


def test_a_file_that_is_no_network_is_refused_beside_its_field(open_page: OpenPage, tmp_path: Path) -> None:
    file = tmp_path / "holiday.onnx"
    file.write_text("Dear diary, today we went to the sea.\n" * 50)
    page = open_page()
    page.locator("#model").set_input_files(file)
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#model-problem")).to_be_visible()
    expect(page.locator("#model-id")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Compress")).to_be_enabled()


def test_what_only_the_inspector_finds_is_told_beside_the_field_too(
    open_page: OpenPage, tmp_path: Path
) -> None:
    whole = (EXAMPLES / "digits_cnn.onnx").read_bytes()
    file = tmp_path / "half.onnx"
    file.write_bytes(whole[: len(whole) // 2])
    page = open_page()
    page.locator("#model").set_input_files(file)
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#model-problem")).to_be_visible(timeout=60_000)


def test_a_loss_of_accuracy_can_be_asked_for_and_the_page_tells_what_was_tried(
    open_page: OpenPage, shared_server: Service
) -> None:
    example = ready_example(shared_server)
    page = open_page()
    page.goto(f"{shared_server.url}/?model={example['model']}&dataset={example['dataset']}")
    page.get_by_label("Hardly any loss").check()
    expect(page.get_by_label("Share to keep")).to_be_hidden()
    points = page.get_by_label("Lose at most so many points of accuracy")
    points.fill("")
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#target-problem")).to_contain_text("such as 1 or 0.5")
    points.fill("12.5")
    page.get_by_label("Fine-tune for").select_option("0")
    page.get_by_text("More choices").click()
    page.get_by_label("Basis from").select_option("weights")  # nothing is fitted: the tries take no time
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url(re.compile("/jobs/job_"), timeout=JOB_MILLISECONDS)
    expect(page.locator("#now")).to_contain_text("Finished", timeout=JOB_MILLISECONDS)
    expect(page.locator(".lead")).to_contain_text("at most 12.5 points of accuracy lost")
    job = shared_server.client.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}").json()
    assert job["compression"]["target"]["accuracy_drop"] == 0.125
    tries = page.get_by_role("region", name="How the size was found").locator("tbody tr")
    expect(tries).to_have_count(len(job["result"]["search"]["tries"]))
    assert job["result"]["compressed"]["macs"] < job["result"]["original"]["macs"]


def test_wrong_fields_are_told_before_anything_is_sent(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#model-problem")).to_contain_text("Choose a network first")
    expect(page.locator("#model")).to_be_focused()
    page.locator("#model").set_input_files(EXAMPLES / "digits_cnn.onnx")
    page.get_by_label("Other targets").check()
    page.get_by_label("Other target", exact=True).select_option("ranks")
    page.get_by_label("Ranks", exact=True).fill("conv1: eight")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#target-problem")).to_contain_text("not of the form layer = rank")
    expect(page.get_by_label("Ranks", exact=True)).to_be_focused()
    assert sent == []


def test_a_problem_of_the_job_is_told_beside_the_field_that_caused_it(
    open_page: OpenPage, shared_server: Service
) -> None:
    example = ready_example(shared_server)
    page = open_page()
    page.get_by_role("combobox", name="or uploaded before").first.select_option(example["model"])
    page.get_by_text("More choices").click()
    page.get_by_label("Layers to leave alone").fill("no_such_layer*")
    page.get_by_role("button", name="Compress").click()
    expect(page.locator("#layers-problem")).to_contain_text("no_such_layer")
    expect(page.get_by_label("Layers to leave alone")).to_be_focused()


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


def test_the_focus_goes_to_the_one_field_that_is_wrong(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#model").set_input_files(EXAMPLES / "digits_cnn.onnx")
    page.get_by_label("Pixel values it was trained on").select_option("custom")
    page.get_by_label("Mean per channel").fill("a third")
    page.get_by_role("button", name="Compress").click()
    wrong = page.get_by_label("Mean per channel")
    expect(wrong).to_be_focused()
    expect(wrong).to_have_accessible_description(re.compile("write numbers separated by commas"))
    assert page.locator("[aria-invalid]").count() == 1
    wrong.fill("0.3")
    page.get_by_label("Hardly any loss").check()
    page.get_by_label("Lose at most so many points").fill("")
    page.get_by_role("button", name="Compress").click()
    expect(page.get_by_label("Lose at most so many points")).to_be_focused()
    assert page.locator("[aria-invalid]").count() == 1


def test_the_common_targets_come_first_and_the_rest_on_demand(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.get_by_role("group", name="What matters most").get_by_role("radio")).to_have_count(4)
    expect(page.get_by_label("Other target", exact=True)).to_be_hidden()
    page.get_by_label("Fewer operations").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Lose at most so many points")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # round to the last
    page.get_by_label("Other target", exact=True).select_option("energy")
    expect(page.locator("#share-out")).to_have_text("90 %")
