"""Where networks are timed: on the device that is set, in each format's own runtime, or not at all."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from app.core.errors import Unavailable
from basisconv.latency import TorchTimer
from basisconv.latency.onnx_timer import OnnxTimer
from tests.formats import nets
from tests.worker.test_pipeline import Bench
from tests.worker.test_pipeline import bench as bench
from worker import device, inputs, pipeline
from worker.problems import as_problem
from worker.runtime import Runtime
from worker.timing import time_files, timer_of
from worker.work import Work

WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.fixture
def work(bench: Bench) -> Work:
    return pipeline.open_work(bench.task(), bench.folder)


def as_pt2(work: Work) -> Work:
    """The same with a small .pt2, which is also its own compressed file."""
    (work.folder / "model").write_bytes(nets.small_pt2())
    network = nets.read(nets.small_pt2(), "pt2")
    return replace(work, network=network, original=network.module, module=network.module)


def test_each_format_is_timed_in_its_own_runtime(work: Work) -> None:
    assert isinstance(timer_of(work), OnnxTimer)
    assert isinstance(timer_of(as_pt2(work)), TorchTimer)


@pytest.mark.parametrize("change", [lambda work: work, as_pt2])
def test_two_files_are_timed_at_one_and_at_32_images(work: Work, change: Any) -> None:
    work = change(work)
    model = work.folder / "model"
    timings = time_files(work, model, model)
    assert [timing.batch for timing in timings] == [1, 32]
    assert all(timing.original.median_ms > 0 < timing.compressed.median_ms for timing in timings)


@WITHOUT_CUDA
def test_without_the_device_that_is_set_a_job_ends_and_says_so(bench: Bench) -> None:
    with pytest.raises(Unavailable) as caught:
        pipeline.run(bench.task() | {"latency_device": "cuda"}, bench.folder, bench.said.append)
    problem = as_problem(caught.value, {"task": "run_job"})
    assert problem.code == "unavailable"
    assert "set to time networks on CUDA and finds no CUDA device" in problem.detail
    assert "BASISCONV_LATENCY_DEVICE" in str(problem.hint)


@WITHOUT_CUDA
def test_a_gpu_that_the_runtime_cannot_use_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(Unavailable, match="ONNX Runtime cannot compute: ") as caught:
        device.check_latency("cuda")
    assert "onnxruntime-gpu" in str(caught.value.hint)


def test_the_setting_reaches_the_job_and_opens_the_gpu_to_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "has_devices", lambda: True)
    for where, opened in (("cpu", False), ("cuda", True)):
        settings = runtime.settings.model_copy(update={"device": "cpu", "latency_device": where})
        assert inputs.policy(replace(runtime, settings=settings)).devices is opened
        assert settings.wants_gpu() is opened


def test_the_result_says_where_it_was_timed(bench: Bench) -> None:
    assert bench.run()["latency_device"] == "cpu"
