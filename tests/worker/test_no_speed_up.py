"""What a job says where the smaller network is not the faster one."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version

import pytest

from basisconv.formats.verify import Latency
from worker import outcome
from worker.outcome import no_speed_up, versions
from worker.timing import Timing, figures, repeats


def _timing(batch: int, before: float, after: float) -> Timing:
    return Timing(batch, Latency(before, 0.01), Latency(after, 0.02), repeats=40)


def test_the_reason_is_told_in_measured_figures() -> None:
    said = no_speed_up([_timing(1, 0.5, 0.6)], share=0.4, replaced=12, device="cpu")
    assert said.startswith(
        "No speed-up on this CPU at batch 1 (0.5 ms before, 0.6 ms after), because each operation "
        "takes 3.0 times as long as before: 12 layers are now 24 smaller ones"
    )


def test_a_network_that_hardly_shrank_has_no_other_reason() -> None:
    said = no_speed_up([_timing(1, 0.5, 0.5), _timing(32, 9, 9.1)], share=0.99, replaced=1, device="cpu")
    assert "at batch 1 (0.5 ms before, 0.5 ms after) and at batch 32 (9 ms before, 9.1 ms after)" in said
    assert said.endswith("because 99% of the operations are left.")
    assert no_speed_up([_timing(1, 1, 1)], 1, 0, "cpu").endswith("because no layer was replaced.")


def test_spreads_and_repeats_are_kept_beside_the_medians() -> None:
    timings = [_timing(1, 0.5, 0.6)]
    assert figures(timings, "compressed") == {
        "latency_ms": {"batch_1": 0.6, "batch_32": None},
        "latency_spread_ms": {"batch_1": 0.02, "batch_32": None},
    }
    assert repeats(timings) == {"batch_1": 40}


def test_the_result_names_the_libraries_that_made_it() -> None:
    runtimes = {"onnxruntime", "onnxruntime-gpu"} & set(versions())
    assert runtimes
    assert set(versions()) - runtimes == {"Python", "basisconv", "torch", "onnx", "numpy"}


def test_a_figure_of_the_gpu_is_not_called_the_cpus() -> None:
    said = no_speed_up([_timing(1, 1, 1)], share=1, replaced=0, device="cuda")
    assert said.startswith("No speed-up on this GPU at batch 1")


def test_onnx_runtime_is_named_by_the_package_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_for_gpus(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return "1.31.1" if name == "onnxruntime-gpu" else metadata_version(name)

    monkeypatch.setattr(outcome, "version", only_for_gpus)
    assert versions()["onnxruntime-gpu"] == "1.31.1"
    assert "onnxruntime" not in versions()
