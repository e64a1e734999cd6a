"""A whole job that times its networks on a CUDA device. Waits for a GPU: never run yet."""

import pytest
import torch

from basisconv.formats.onnx_session import NoCuda, check_cuda
from tests.worker.test_pipeline import Bench
from tests.worker.test_pipeline import bench as bench
from worker import pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_target_of_time_is_met_or_missed_by_the_devices_own_figures(bench: Bench, device: str) -> None:
    try:
        check_cuda()
    except NoCuda as reason:
        pytest.skip(str(reason))
    bench.give_images()
    task = bench.task(compression={"target": {"latency": 1.0}, "forms": "auto"})
    result = pipeline.run(
        task | {"device": device, "latency_device": "cuda"}, bench.folder, bench.said.append
    )
    assert result["latency_device"] == "cuda"
    before, after = (result[name]["latency_ms"]["batch_1"] for name in ("original", "compressed"))
    assert min(before, after) > 0
    missed = "target_missed" in bench.warnings()
    assert result["target_met"] is not missed
    assert not missed or after > before
