"""The job itself on a small real network: what it promises of its result, its files and its refusals."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from app.core.errors import DatasetMismatch, ExportMismatch, Problem
from basisconv.errors import InfeasibleTarget
from basisconv.formats.verify import Latency
from basisconv.measure import check
from tests.worker import networks
from worker import pipeline
from worker.outcome import Judgement, _judge_latency
from worker.problems import as_problem
from worker.stages.calibrate import calibrate
from worker.stages.decompose import decompose
from worker.stages.evaluate import evaluate
from worker.stages.export import export
from worker.stages.verify import verify
from worker.timing import Timing

TRAIN, TEST = 160, 80
Message = dict[str, Any]


@dataclass
class Bench:
    """A folder with the inputs of one job."""

    folder: Path
    model: bytes = field(default_factory=networks.small_cnn)
    input: dict[str, Any] = field(default_factory=lambda: dict(networks.INPUT))
    outputs: list[int] = field(default_factory=lambda: [networks.CLASSES])
    said: list[Message] = field(default_factory=list)
    with_data: bool = False

    def give_images(self, y: Any = "own answers", x: Any = None) -> None:
        pixels = networks.images(TRAIN + TEST) if x is None else x
        labels = networks.spread_out(self.model, len(pixels)) if isinstance(y, str) else y
        networks.dataset(self.folder, pixels, labels, TRAIN)
        self.with_data = True

    def task(self, **options: Any) -> Message:
        (self.folder / "model").write_bytes(self.model)
        compression = {"target": {"macs": 0.7}} | options.pop("compression", {})
        return {
            "task": "run_job",
            "options": {"compression": compression, "exports": ["onnx"]} | options,
            "model": {
                "file": "model",
                "format": "onnx",
                "input": self.input,
                "summary": {"outputs": self.outputs},
                "name": "small.onnx",
            },
            "dataset": {"file": "dataset", "cache": "sized"} if self.with_data else None,
            "device": "cpu",
            "latency_device": "cpu",
            "threads": 1,
            "bytes_original": len(self.model),
        }

    def run(self, **options: Any) -> Message:
        return pipeline.run(self.task(**options), self.folder, self.said.append)

    def warnings(self) -> dict[str, str]:
        return {said["code"]: said["detail"] for said in self.said if said["type"] == "warning"}

    def layers(self, result: Message) -> dict[str, Message]:
        return {layer["name"]: layer for layer in result["layers"]}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_finished_job_reports_three_networks_and_files_that_answer_as_reported(bench: Bench) -> None:
    bench.give_images()
    result = bench.run(training={"epochs": 1, "batch_size": 32}, exports=["onnx", "pt2", "safetensors"])
    original, truncated, compressed = (result[n] for n in ("original", "truncated", "compressed"))
    assert (original["accuracy"], original["agreement"]) == (1.0, 1.0)
    assert compressed["macs"] <= 0.7 * original["macs"]
    assert result["target_met"] is True
    assert original["bytes"] == len(bench.model)
    assert compressed["bytes"] == (bench.folder / "compressed.onnx").stat().st_size
    assert all(value > 0 for value in [*original["latency_ms"].values(), *compressed["latency_ms"].values()])
    assert truncated["macs"] == compressed["macs"]
    assert [entry["format"] for entry in result["exports"]] == ["onnx", "pt2", "safetensors"]
    for entry in result["exports"]:
        assert entry["max_abs_diff"] < 1e-4
        assert entry["accuracy"] == pytest.approx(compressed["accuracy"], abs=1.5 / TEST)
    assert [entry["name"] for entry in result["attachments"]] == ["recipe.json"]
    x, y = networks.images(TRAIN + TEST)[TRAIN:], networks.spread_out(bench.model, TRAIN + TEST)[TRAIN:]
    answers = networks.scores((bench.folder / "compressed.onnx").read_bytes(), x).argmax(1)
    assert result["exports"][0]["accuracy"] == pytest.approx((answers == y).mean(), abs=1e-9)


def test_stages_come_in_order_and_progress_never_goes_back(bench: Bench) -> None:
    bench.give_images()
    result = bench.run(training={"epochs": 2, "batch_size": 32})
    stages = [said["stage"] for said in bench.said if said["type"] == "stage"]
    assert ["calibrate", *stages] == ["calibrate", "decompose", "finetune", "evaluate", "export", "verify"]
    assert list(result["seconds"]) == list(result["peak_bytes"]) == ["calibrate", *stages]
    assert result["peak_memory_bytes"] == max(result["peak_bytes"].values()) > 0
    assert result["peak_device_bytes"] is None  # the job ran on the CPU
    fractions = [said["fraction"] for said in bench.said if said["type"] == "progress"]
    assert fractions == sorted(fractions)
    names = {said["name"] for said in bench.said if said["type"] == "metric"}
    assert {"train_loss", "learning_rate", "images_per_second", "accuracy"} <= names


def test_without_images_the_job_says_so_and_claims_an_expectation_but_no_accuracy(bench: Bench) -> None:
    result = bench.run()
    for name in ("original", "truncated", "compressed"):
        assert (result[name]["accuracy"], result[name]["agreement"]) == (None, None)
    made = result["synthetic"]
    assert (made["calibration_images"], made["batch_norms"], made["held_back_images"]) == (512, 0, 128)
    assert 0.3 < made["expected_agreement"] <= 1
    assert "No images were given" in bench.warnings()["no_images"]
    assert "noise" in bench.warnings()["no_images"]
    assert result["compressed"]["macs"] <= 0.7 * result["original"]["macs"]
    assert result["exports"][0]["max_abs_diff"] < 1e-4
    fractions = [said["fraction"] for said in bench.said if said["type"] == "progress"]
    assert fractions == sorted(fractions)


def test_a_job_without_images_on_a_network_with_batch_norms_uses_what_they_remember(bench: Bench) -> None:
    bench.model = networks.with_norms(bench.model)
    result = bench.run()
    assert result["synthetic"]["batch_norms"] == 3
    assert "3 norms" in bench.warnings()["no_images"]
    assert 0.3 < result["synthetic"]["expected_agreement"] <= 1


def test_the_papers_basis_of_the_weights_needs_no_images_when_it_is_asked_for(bench: Bench) -> None:
    result = bench.run(compression={"target": {"rank_fraction": 0.5}, "basis": "weights"})
    for name in ("original", "truncated", "compressed"):
        assert (result[name]["accuracy"], result[name]["agreement"]) == (None, None)
    assert {layer["form"] for layer in result["layers"] if layer["replaced"]} == {"basis"}
    assert result["synthetic"] is None
    assert "no_images" not in bench.warnings()
    assert result["exports"][0]["max_abs_diff"] < 1e-4


def test_unlabelled_images_give_agreement_in_place_of_accuracy(bench: Bench) -> None:
    bench.give_images(y=None)
    result = bench.run()
    assert result["compressed"]["accuracy"] is None
    assert 0 < result["compressed"]["agreement"] <= 1
    assert result["original"]["agreement"] == 1.0


def test_a_network_that_is_no_classifier_is_judged_in_decibels_per_output(bench: Bench) -> None:
    model = onnx.load_from_string(bench.model)
    del model.graph.node[-3:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r3", 1, ["batch", 32, 8, 8]))
    bench.model = model.SerializeToString()
    bench.outputs = [32, 8, 8]
    bench.give_images(y=None)
    result = bench.run(compression={"target": {"macs": 0.8}})
    assert list(result["compressed"]["agreement_db"]) == ["r3"]
    assert 3 < result["compressed"]["agreement_db"]["r3"] < 100
    assert result["compressed"]["agreement"] is None


def test_a_file_with_a_fixed_batch_stays_one_and_is_timed_only_at_that_size(bench: Bench) -> None:
    bench.model = networks.small_cnn(batch=1)
    bench.give_images(y=networks.spread_out(networks.small_cnn(), TRAIN + TEST))
    result = bench.run(training={"epochs": 1, "batch_size": 32})
    exported = onnx.load(bench.folder / "compressed.onnx")
    assert exported.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert result["original"]["accuracy"] == 1.0
    assert result["compressed"]["latency_ms"]["batch_1"] > 0
    assert result["compressed"]["latency_ms"]["batch_32"] is None


@pytest.mark.parametrize("with_images", [True, False])
def test_a_share_of_the_time_is_asked_for_and_judged_by_the_files_own_times(
    bench: Bench, with_images: bool
) -> None:
    if with_images:
        bench.give_images()
    result = bench.run(compression={"target": {"latency": 1.0}, "forms": "auto"})
    before, after = (result[name]["latency_ms"]["batch_1"] for name in ("original", "compressed"))
    missed = "target_missed" in bench.warnings()
    assert result["target_met"] is not missed
    assert not missed or after > before
    assert any("Timing the layers as pairs" in said.get("message", "") for said in bench.said)
    kept = {layer["reason"] for layer in result["layers"] if not layer["replaced"]}
    assert kept <= {"not_faster", "kept_by_budget"}
    fractions = [said["fraction"] for said in bench.said if said["type"] == "progress"]
    assert fractions == sorted(fractions)


def test_too_little_time_is_refused_with_the_time_that_the_fastest_pairs_take(bench: Bench) -> None:
    with pytest.raises(InfeasibleTarget) as caught:
        bench.run(compression={"target": {"latency": 0.001}})
    assert caught.value.achievable is not None
    assert 0.001 < caught.value.achievable <= 1


def test_a_batch_size_baked_into_the_file_is_the_one_that_is_timed(bench: Bench) -> None:
    bench.model = networks.small_cnn(batch=3)
    result = bench.run(compression={"target": {"latency": 1.0}})
    latency = result["compressed"]["latency_ms"]
    assert latency["batch_3"] > 0
    assert latency["batch_1"] is latency["batch_32"] is None


@pytest.mark.parametrize(("after_ms", "met"), [(5.0, True), (5.2, True), (6.0, False)])
def test_a_missed_share_of_the_time_is_a_warning_with_both_times_beyond_their_spread(
    bench: Bench, after_ms: float, met: bool
) -> None:
    work = pipeline.open_work(bench.task(compression={"target": {"latency": 0.5}}), bench.folder)
    work.timings = [Timing(1, Latency(10.0, 0.5), Latency(after_ms, 0.25), 25)]
    found = Judgement()
    _judge_latency(work, found)
    assert found.met is met
    if not met:
        assert "6 of 10 ms, 60.0%" in dict(found.warnings)["target_missed"]


def test_an_unreachable_target_is_refused_with_what_is_reachable_before_the_images_are_used(
    bench: Bench,
) -> None:
    bench.give_images()
    with pytest.raises(Exception, match="remain") as caught:
        bench.run(compression={"target": {"macs": 0.01}})
    problem = as_problem(caught.value, {"task": "run_job"})
    assert problem.code == "target_infeasible"
    reachable = problem.extra["achievable"]
    assert 0.01 < reachable < 0.3
    assert bench.said == []
    for share, fits in ((reachable, True), (reachable - 2e-4, False)):
        work = pipeline.open_work(bench.task(compression={"target": {"macs": share}}), bench.folder)
        with nullcontext() if fits else pytest.raises(InfeasibleTarget):
            check(work.original, work.example, work.config())


def test_more_classes_than_outputs_is_refused_with_both_numbers(bench: Bench) -> None:
    bench.give_images(y=np.arange(TRAIN + TEST) % 12)
    with pytest.raises(DatasetMismatch, match=r"12 classes.*10 outputs"):
        bench.run()


def test_images_of_other_channels_are_refused_with_both_numbers(bench: Bench) -> None:
    x = np.zeros((TRAIN + TEST, networks.SIDE, networks.SIDE, 4), np.uint8)
    bench.give_images(y=np.arange(TRAIN + TEST) % 10, x=x)
    with pytest.raises(Problem, match=r"4") as caught:
        bench.run()
    assert caught.value.code == "dataset_mismatch"


def test_a_wrong_normalisation_is_named_and_is_no_error(bench: Bench) -> None:
    mean = [0.0, 0.0, 0.0]
    bench.model = networks.small_cnn()
    bench.give_images()
    bench.input |= {"mean": mean, "std": [1e-3] * 3}
    bench.input["scale"] = 1e-4  # so far off that the answers are one class for all
    bench.run()
    detail = bench.warnings()["baseline_mismatch"]
    assert "chance" in detail
    assert "normalisation" in detail


def test_a_wrong_class_order_is_named_and_is_no_error(bench: Bench) -> None:
    bench.give_images(y=(networks.spread_out(bench.model, 1000)[: TRAIN + TEST] + 3) % networks.CLASSES)
    result = bench.run()
    assert result["original"]["accuracy"] == 0.0
    assert "class order" in bench.warnings()["baseline_mismatch"]


def test_a_network_that_answers_well_gets_no_baseline_warning(bench: Bench) -> None:
    bench.give_images()
    bench.run()
    assert "baseline_mismatch" not in bench.warnings()


def test_a_missed_limit_on_accuracy_leaves_the_target_unmet_with_a_warning(bench: Bench) -> None:
    bench.give_images()
    result = bench.run(compression={"target": {"macs": 0.2}}, limits={"accuracy_drop": 0.0})
    assert result["target_met"] is False
    assert "the limit is 0.00%" in bench.warnings()["accuracy_limit_missed"]


def test_ranks_and_patterns_are_in_the_networks_own_layer_names(bench: Bench) -> None:
    bench.give_images()
    layers = bench.layers(bench.run(compression={"target": {"ranks": {"conv2": 7}}}))
    assert (layers["conv2"]["form"], layers["conv2"]["rank"]) == ("basis", 7)
    assert layers["conv3"]["reason"] == "not_requested"
    again = bench.layers(bench.run(compression={"layers": {"include": ["conv*"], "exclude": ["conv3"]}}))
    assert again["conv2"]["replaced"]
    assert (again["conv3"]["replaced"], again["conv3"]["reason"]) == (False, "excluded")


def test_a_file_that_answers_otherwise_is_not_published(bench: Bench) -> None:
    bench.give_images()
    work = pipeline.open_work(bench.task(), bench.folder)
    for stage in (calibrate, decompose, evaluate, export):
        list(stage(work))
    path = bench.folder / "compressed.onnx"
    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    damaged = onnx.numpy_helper.to_array(weights) * 1.1
    weights.CopyFrom(onnx.numpy_helper.from_array(damaged, weights.name))
    onnx.save(model, path)
    with pytest.raises(ExportMismatch, match="onnx"):
        list(verify(work))


def test_the_same_job_gives_the_same_network(bench: Bench) -> None:
    bench.give_images()
    files = []
    for _ in range(2):
        bench.run(training={"epochs": 1, "batch_size": 32, "seed": 3})
        files.append((bench.folder / "compressed.onnx").read_bytes())
    assert files[0] == files[1]
