"""Jobs of the kind `train` on a small real network, and the paper's way to compress one, end to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from basisconv.errors import InfeasibleTarget, InvalidRequest
from tests.worker import networks
from tests.worker.test_pipeline import TEST, TRAIN, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return with_halves(tmp_path)


def with_halves(folder: Path) -> Bench:
    """Images whose class a network can learn: the brighter half says which of four it is."""
    made = Bench(folder)
    y = np.arange(TRAIN + TEST) % 4
    x = networks.images(TRAIN + TEST).astype(np.int64) // 2
    half = networks.SIDE // 2
    for index, label in enumerate(y):
        rows, columns = slice(None), slice(None)
        if label < 2:
            rows = slice(half * label, half * (label + 1))
        else:
            columns = slice(half * (label - 2), half * (label - 1))
        x[index, rows, columns] += 110
    made.give_images(y=y.astype(np.int64), x=np.clip(x, 0, 255).astype(np.uint8))
    return made


def train(bench: Bench, **options: Any) -> dict[str, Any]:
    compression = {"basis": "random", "target": {"expansion": 1.5}} | options.pop("compression", {})
    wanted = {"epochs": 12, "batch_size": 16, "augment": "none"} | options.pop("training", {})
    return bench.run(kind="train", compression=compression, training=wanted, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, dict[str, Any]]:
    done = with_halves(tmp_path_factory.mktemp("train"))
    return done, train(done, exports=["onnx", "pt2", "safetensors"])


def test_it_learns_well_above_chance_whatever_the_uploaded_network_answered(
    finished: tuple[Bench, dict[str, Any]],
) -> None:
    bench, result = finished
    assert result["original"]["accuracy"] < 0.5  # its weights know nothing of these classes
    assert result["truncated"]["accuracy"] < 0.6
    assert result["compressed"]["accuracy"] > 0.8
    assert not {"baseline_mismatch", "nothing_learned"} & bench.warnings().keys()


def test_stages_and_the_accuracy_curve_are_told_as_for_every_job(
    finished: tuple[Bench, dict[str, Any]],
) -> None:
    bench, result = finished
    assert list(result["seconds"]) == ["calibrate", "decompose", "finetune", "evaluate", "export", "verify"]
    curve = [said["value"] for said in bench.said if said.get("name") == "accuracy"]
    assert len(curve) == 13
    assert curve[-1] == pytest.approx(result["compressed"]["accuracy"])
    fractions = [said["fraction"] for said in bench.said if said["type"] == "progress"]
    assert fractions == sorted(fractions)


def test_learnable_and_stored_parameters_are_told_apart(finished: tuple[Bench, dict[str, Any]]) -> None:
    _, result = finished
    compressed = result["compressed"]
    fixed = sum(36 * 27 if layer["name"] == "conv1" else 0 for layer in result["layers"])
    fixed += 48 * 9 * 24 + 48 * 9 * 32
    assert compressed["params"] - compressed["learnable_params"] == fixed
    assert {layer["name"]: layer["rank"] for layer in result["layers"]} == {
        "conv1": 36,
        "conv2": 48,
        "conv3": 48,
        "fc": None,
    }


def test_every_file_answers_as_reported_and_safetensors_hold_no_filters(
    finished: tuple[Bench, dict[str, Any]],
) -> None:
    bench, result = finished
    exports = {entry["format"]: entry for entry in result["exports"]}
    assert list(exports) == ["onnx", "pt2", "safetensors"]
    for entry in exports.values():
        assert entry["max_abs_diff"] < 1e-4
        assert entry["accuracy"] == pytest.approx(result["compressed"]["accuracy"], abs=1.5 / TEST)
    stored = load_file(bench.folder / "compressed.safetensors")
    assert sum(value.size for value in stored.values()) == result["compressed"]["learnable_params"]
    recipe = json.loads((bench.folder / "recipe.json").read_text())
    assert {entry["random"]["seed"] for entry in recipe["layers"]} == {0}
    assert exports["safetensors"]["bytes"] < exports["onnx"]["bytes"] / 2


def test_the_same_job_gives_the_same_network_and_another_seed_another(bench: Bench) -> None:
    files = []
    for seed in (3, 3, 4):
        train(bench, training={"epochs": 1, "seed": seed}, exports=["onnx"])
        files.append((bench.folder / "compressed.onnx").read_bytes())
    assert files[0] == files[1] != files[2]


def test_budgets_hold_and_both_cuts_can_be_asked_for_at_once(bench: Bench) -> None:
    result = train(
        bench,
        compression={"target": {"macs": 0.4}},
        training={"epochs": 1},
        limits={"learnable_params": 0.1},
    )
    before, after = result["original"], result["compressed"]
    assert after["macs"] <= 0.4 * before["macs"]
    assert after["learnable_params"] <= 0.1 * before["learnable_params"]
    assert result["target_met"] is True


def test_names_are_the_networks_own_in_ranks_and_filters(bench: Bench) -> None:
    compression = {"target": {"rank_fraction": 0.5}, "layers": {"include": ["*"], "exclude": ["conv1"]}}
    layers = bench.layers(train(bench, compression=compression, training={"epochs": 1}))
    assert (layers["conv1"]["reason"], layers["conv2"]["rank"]) == ("excluded", 16)
    layers = bench.layers(
        train(bench, compression={"target": {"ranks": {"conv3": 9}}}, training={"epochs": 1})
    )
    assert (layers["conv3"]["rank"], layers["conv2"]["reason"]) == (9, "not_requested")


def test_an_unreachable_budget_is_refused_before_the_images_are_used(bench: Bench) -> None:
    with pytest.raises(InfeasibleTarget) as caught:
        train(bench, compression={"target": {"macs": 0.001}})
    assert caught.value.achievable is not None
    assert bench.said == []


def test_a_network_without_classes_is_refused(bench: Bench) -> None:
    model = onnx.load_from_string(bench.model)
    del model.graph.node[-3:]
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("r3", 1, ["batch", 32, 8, 8]))
    bench.model, bench.outputs = model.SerializeToString(), [32, 8, 8]
    with pytest.raises(InvalidRequest, match="classifier"):
        train(bench)


def test_training_that_ends_at_chance_says_so(bench: Bench) -> None:
    train(bench, training={"epochs": 1, "learning_rate": 1e-9})
    assert "chance level" in bench.warnings()["nothing_learned"]


def test_a_limit_on_what_learns_is_judged_for_compressed_networks_too(bench: Bench) -> None:
    result = bench.run(compression={"target": {"macs": 0.9}}, limits={"learnable_params": 0.01})
    assert result["target_met"] is False
    assert "at most 1.0%" in bench.warnings()["learnable_limit_missed"]


def test_the_papers_way_freezes_the_basis_of_the_weights_and_tunes_the_rest(tmp_path: Path) -> None:
    paper = Bench(tmp_path)
    paper.give_images()
    files = []
    for epochs in (0, 2):
        result = paper.run(
            compression={"basis": "weights", "target": {"energy": 0.6}},
            training={"epochs": epochs, "update": "mixing", "objective": "labels", "batch_size": 16},
            exports=["safetensors"],
        )
        files.append(load_file(paper.folder / "compressed.safetensors"))
    replaced = [layer["name"] for layer in result["layers"] if layer["replaced"]]
    assert replaced
    frozen = {name for name in files[0] if name.endswith("basis.weight")}
    assert len(frozen) == len(replaced)
    assert {name for name in files[0] if np.array_equal(files[0][name], files[1][name])} == frozen
    for name in frozen:
        rows = files[0][name].reshape(len(files[0][name]), -1)
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-5)
    costs = result["compressed"]
    fixed = sum(files[0][name].size for name in frozen)
    assert costs["learnable_params"] == costs["params"] - fixed
