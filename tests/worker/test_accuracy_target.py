"""A job whose target is a loss of accuracy: what it searches, what it promises, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from app.core.errors import DatasetMismatch
from basisconv.errors import InvalidRequest
from tests.worker import networks
from tests.worker.test_pipeline import TEST, TRAIN, Bench
from worker import pipeline
from worker.calibration import (
    CALIBRATION_IMAGES,
    HELD_BACK_IMAGES,
    calibration_images,
    held_back,
)
from worker.stages.calibrate import calibrate
from worker.stages.decompose import decompose


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def wish(allowed: float, **more: object) -> dict[str, object]:
    return {"target": {"accuracy_drop": allowed}, "forms": "basis", **more}


def test_the_smallest_network_within_the_loss_is_found_and_confirmed_on_the_validation_images(
    bench: Bench,
) -> None:
    bench.give_images()
    result = bench.run(compression={"target": {"accuracy_drop": 0.2}})
    original, compressed, search = result["original"], result["compressed"], result["search"]
    passed = [one for one in search["tries"] if one["passed"]]
    assert passed
    assert compressed["macs"] == min(one["macs"] for one in passed) < original["macs"]
    assert search["expected_loss"] == min(passed, key=lambda one: one["macs"])["loss"] <= 0.2
    assert all(one["passed"] == (one["loss"] <= 0.2) for one in search["tries"])
    assert search["held_back_images"] == TRAIN // 2
    assert result["target_met"] is (original["accuracy"] - compressed["accuracy"] <= 0.2)
    assert ("target_missed" in bench.warnings()) is not result["target_met"]


def test_every_try_is_told_while_it_is_made_and_after_it(bench: Bench) -> None:
    bench.give_images()
    work = pipeline.open_work(bench.task(compression=wish(0.2)), bench.folder)
    list(calibrate(work))
    said = list(decompose(work))
    assert work.search is not None
    tries = work.search.tries
    told = [(one["step"], one["value"]) for one in said if one["type"] == "metric"]
    assert told == [(number, one.loss) for number, one in enumerate(tries, start=1)]
    messages = [one["message"] for one in said if one["type"] == "progress"]
    assert "Trying 50.0% of the operations" in messages
    assert any(f"(before: 50.0%, about {100 * tries[0].loss:.2f} points would" in one for one in messages)
    fractions = [one["fraction"] for one in said if one["type"] == "progress"]
    assert fractions == sorted(fractions)


def test_answers_too_large_for_memory_are_judged_alike(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.give_images()
    in_memory = bench.run(compression=wish(0.2))["search"]["tries"]
    monkeypatch.setattr("worker.measure.MAP_BYTES", 0)  # each network's answers lie in a file of their own
    assert bench.run(compression=wish(0.2))["search"]["tries"] == in_memory


def test_a_loss_that_the_validation_images_do_not_confirm_leaves_the_target_unmet(bench: Bench) -> None:
    right = networks.spread_out(bench.model, TRAIN + TEST)
    pixels = networks.images(TRAIN + TEST)
    pixels[:TRAIN] = pixels[0]  # whatever is held back looks alike: it foretells nothing
    bench.give_images(y=np.concatenate([np.full(TRAIN, right[0]), right[TRAIN:]]), x=pixels)
    result = bench.run(compression=wish(0.0))
    assert result["compressed"]["accuracy"] < result["original"]["accuracy"]
    assert result["target_met"] is False
    assert "had foretold 0.00%" in bench.warnings()["target_missed"]


@pytest.mark.parametrize("epochs", [0, 1])
def test_where_every_smaller_network_loses_too_much_the_network_comes_back_as_it_was(
    bench: Bench, epochs: int
) -> None:
    bench.give_images()
    result = bench.run(compression=wish(0.0), training={"epochs": epochs, "batch_size": 32})
    assert result["search"]["share"] is None
    assert result["compressed"]["macs"] == result["original"]["macs"]
    assert result["compressed"]["agreement"] == 1.0
    assert result["exports"][0]["agreement"] == 1.0
    assert result["target_met"] is True
    assert "every layer stays as it is" in bench.warnings()["no_smaller_network"]
    assert {layer["reason"] for layer in result["layers"]} == {"kept_by_accuracy"}


def test_without_labels_answers_that_become_others_are_what_is_lost(bench: Bench) -> None:
    bench.give_images(y=None)
    result = bench.run(compression=wish(0.3))
    assert result["search"]["share"] is not None
    assert result["target_met"] is (result["compressed"]["agreement"] >= 0.7)


def test_fine_tuning_comes_after_the_search_and_the_end_is_judged(bench: Bench) -> None:
    bench.give_images()
    result = bench.run(compression=wish(0.3), training={"epochs": 1, "batch_size": 32})
    assert result["compressed"]["macs"] == result["truncated"]["macs"] < result["original"]["macs"]
    assert "finetune" in result["seconds"]
    lost = result["original"]["accuracy"] - result["compressed"]["accuracy"]
    assert result["target_met"] is (lost <= 0.3)


def test_few_images_to_judge_by_are_warned_of(bench: Bench) -> None:
    bench.give_images()
    bench.run(compression=wish(0.01))
    assert "80 train images are held back" in bench.warnings()["few_held_back_images"]


def test_a_network_that_scores_no_classes_is_refused_plainly(bench: Bench) -> None:
    bench.model, bench.outputs = _pixelwise(), [4]
    bench.give_images(y=None)
    with pytest.raises(InvalidRequest, match="needs a network that scores classes") as caught:
        bench.run(compression=wish(0.1))
    assert "share of the operations" in str(caught.value.hint)


def test_a_single_train_image_can_not_be_calibrated_on_and_judged_by(bench: Bench) -> None:
    networks.dataset(bench.folder, networks.images(3), None, 1)
    bench.with_data = True
    with pytest.raises(DatasetMismatch, match="1 train image"):
        bench.run(compression=wish(0.1))


@pytest.mark.parametrize(("wanted", "seen"), [({"macs": 0.7}, TRAIN), ({"accuracy_drop": 0.1}, TRAIN // 2)])
def test_images_to_calibrate_on_are_spread_always_the_same_and_never_those_held_back(
    bench: Bench, wanted: dict[str, float], seen: int
) -> None:
    bench.give_images()
    work = pipeline.open_work(bench.task(compression={"target": wanted}), bench.folder)
    images = calibration_images(work)
    assert images is not None
    one, other = (np.concatenate([batch.numpy() for batch in images()]) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert len(one) == seen <= CALIBRATION_IMAGES
    if "accuracy_drop" in wanted:
        held = held_back(work)
        assert len(held.x) == TRAIN - seen <= HELD_BACK_IMAGES
        mean, std = (np.array(work.spec.mean), np.array(work.spec.std))
        pixels = np.rint((one.transpose(0, 2, 3, 1) * std + mean) * 255).astype(np.uint8)
        assert not {row.tobytes() for row in pixels} & {row.tobytes() for row in held.x}


def _pixelwise() -> bytes:
    """One 3x3 convolution: four scores for every pixel."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["map"], "conv", pads=[1] * 4)
    side = networks.SIDE
    graph = helper.make_graph(
        [node],
        "pixelwise",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", 4, side, side])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.flatten())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data
