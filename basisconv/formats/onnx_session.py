"""Sessions of ONNX Runtime on the CPU or a CUDA device, and calls whose images and answers lie there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

Device = Literal["cpu", "cuda"]

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
# In full float32, as the networks are judged; left to itself the provider computes in TF32.
_PROVIDERS: Final[dict[Device, list[Any]]] = {"cpu": [_CPU], "cuda": [(_CUDA, {"use_tf32": "0"}), _CPU]}


class NoCuda(RuntimeError):  # noqa: N818 - what is the case
    """This machine's ONNX Runtime does not compute on a CUDA device."""


def open_session(
    model: str | bytes,
    threads: int = 1,
    device: Device = "cpu",
    *,
    optimise: bool = True,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """A session with `threads` intra-op threads; `profile`: the beginning of its profile's path.

    Raises NoCuda where the runtime would take the CPU instead of the device.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if device == "cuda":
        return _on_cuda(model, options)
    return onnxruntime.InferenceSession(model, options, _PROVIDERS[device])


def _on_cuda(model: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """What the runtime itself does without the device is to say so, or not, and to go on on the CPU."""
    if _CUDA not in onnxruntime.get_available_providers():
        raise NoCuda(f"this onnxruntime has no {_CUDA}")
    onnxruntime.preload_dlls(msvc=False)  # CUDA's libraries, from where torch has its own
    try:
        session = onnxruntime.InferenceSession(model, options, _PROVIDERS["cuda"], enable_fallback=0)
    except RuntimeError as error:
        raise NoCuda(str(error)[:300]) from error
    if _CUDA not in session.get_providers():
        raise NoCuda(f"{_CUDA} is installed and does not start")
    return session


def check_cuda() -> None:
    """Raises NoCuda where ONNX Runtime cannot run the smallest of all networks on a CUDA device."""
    same = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "smallest", same[:1], same[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model.SerializeToString(), device="cuda")
    bound(session, {"x": np.zeros(1, np.float32)}, "cuda")()


def bound(
    session: onnxruntime.InferenceSession, feed: Mapping[str, NDArray[Any]], device: Device
) -> Callable[[], None]:
    """Calls of the session that copy nothing to or from the device, and end when it is done."""
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)
    binding.synchronize_inputs()

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run
