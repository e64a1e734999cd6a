"""Exported files are run as their users would run them, whatever batch size they take."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from basisconv.formats import onnx_session, verify
from tests.formats.nets import answers, conv, conv_weights, graph, images, pt2_of, small, small_onnx


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_onnx_batches_are_cut_and_filled_to_the_files_size(batch: int | None) -> None:
    batches = [images(6).numpy(), images(3).numpy()]
    results = list(verify.outputs_onnx(small_onnx(batch), batches, batch))
    assert [len(result[0]) for result in results] == [6, 3]
    for (result,), given in zip(results, batches, strict=True):
        np.testing.assert_allclose(result, answers(small(), torch.from_numpy(given)), atol=1e-5)


def test_pt2_batches_are_filled_to_the_files_size(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(pt2_of(small(), 4))
    (result,) = next(verify.outputs_pt2(path, [images(6).numpy()], 4))
    np.testing.assert_allclose(result, answers(small(), images(6)), atol=1e-5)


def test_an_output_that_does_not_follow_the_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not follow a batch of 4"):
        verify.run_part(lambda _: (np.zeros((3, 2)),), np.zeros((2, 3, 4, 4), np.float32), 4)


@pytest.mark.parametrize(
    ("declared", "shape", "layout"),
    [
        ([None, 3, 12, 12], (2, 3, 12, 12), "NCHW"),
        ([None, 12, 12, 3], (2, 3, 12, 12), "NHWC"),
        ([None, None, None, 3], (2, 3, 12, 12), "NHWC"),
        ([None, 3, None, None], (2, 3, 12, 12), "NCHW"),
        ([None, None, None, None], (2, 3, 12, 12), "NCHW"),
    ],
)
def test_the_layout_is_told_from_what_the_file_declares(
    declared: list[int | None], shape: tuple[int, ...], layout: str
) -> None:
    assert verify.layout_of(declared, shape) == layout


def test_networks_are_timed_in_turns() -> None:
    calls: list[str] = []

    def load(name: str) -> verify.Load:
        return lambda images: lambda: calls.append(f"{name} {images.shape}")

    timed = verify.paired_latency_ms({"a": load("a"), "b": load("b")}, (3, 4, 4), batch=2, repeats=3)
    a, b = "a (2, 3, 4, 4)", "b (2, 3, 4, 4)"
    assert calls == [a, a, b, b, *[a, b] * 3]
    assert all(latency.median_ms >= 0 and latency.spread_ms >= 0 for latency in timed.values())


def test_a_file_is_timed_in_the_runtime() -> None:
    assert verify.latency_ms(small_onnx(), (3, 12, 12), batch=2, repeats=3).median_ms > 0


def test_an_nhwc_file_gets_its_images_turned_before_it_is_timed() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 3, 1, 2]), conv(source="t")]
    model = graph(nodes, conv_weights(), shape=("n", 12, 10, 3))
    verify.onnx_load(model)(images(2)[..., :10].numpy())()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_runtime_without_the_device_is_refused() -> None:
    with pytest.raises(onnx_session.NoCuda, match="CUDAExecutionProvider"):
        verify.onnx_load(small_onnx(), device="cuda")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed"
)
def test_a_session_that_goes_on_on_the_cpu_instead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: everything)
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(onnx_session.NoCuda):
        onnx_session.check_cuda()


def test_torchs_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with verify.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
