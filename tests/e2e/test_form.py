"""The form of the first page: what can be chosen there, and what is told beside the field that is wrong."""

import re
from pathlib import Path

import safetensors.torch
from playwright.sync_api import expect

from tests.e2e.conftest import EXAMPLES, JOB_MILLISECONDS, OpenPage, drop, ready_example
from tests.support.networks import CifarResNet
from tests.support.service import Service


def test_random_filters_train_the_structure_from_scratch(open_page: OpenPage, shared_server: Service) -> None:
    page = open_page()
    drop(page, "#model-drop", EXAMPLES / "digits_cnn.pt2")
    drop(page, "#dataset-drop", EXAMPLES / "digits.npz")
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
