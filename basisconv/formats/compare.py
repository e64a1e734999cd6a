"""Is our copy of a network the network? Same random images through both; if not, where do they part?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from basisconv.errors import MethodError
from basisconv.formats.names import quoted, shortened
from basisconv.formats.network import Network, as_tuple, evaluating
from basisconv.formats.onnx_checks import node_names
from basisconv.formats.onnx_session import open_session
from basisconv.formats.pt2_import import layer_of
from basisconv.formats.verify import Outputs, layout_of, onnx_runner, run_part

# Of an output's largest number. Float32 networks of 200 layers agree to 1e-5 of it; a wrong padding or a
# missing scale is off by more than 1e-2.
TOLERANCE: Final = 1e-3
_OTHERWISE: Final = "Export the network with another opset, or without the operator of that node."
SMALLEST_SCALE: Final = 1e-3  # outputs below it are judged by their absolute difference: runtimes round there


def check_import(network: Network, seed: int = 0) -> float:
    """Compare the module with the file it came from; gives the largest difference, relative to the output.

    Raises import_mismatch naming the first node whose value differs; malformed_model if the file itself
    cannot be run.
    """
    images = network.example(network.batch or 2, seed=seed)
    reference = _reference(network, images)
    _refuse_nothing_finite(network, images, reference)
    ours = _ours(network, images)
    worst = max(map(difference, ours, reference), default=0.0) if _same_shapes(ours, reference) else np.inf
    if worst <= TOLERANCE:
        return worst
    node, off = _first_difference(network, images)
    where = f"They part at the node {quoted(node)}, by {off:.2g} of its largest value." if node else ""
    raise MethodError(
        "import_mismatch",
        f"Our copy's outputs differ from the file's by {worst:.2g} of the largest value "
        f"(up to {TOLERANCE:g} is rounding). {where}".rstrip(),
        layer=node,
        hint=_OTHERWISE,
    )


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference of two arrays, relative to the largest finite number of the second."""
    if ours.shape != theirs.shape:
        return float("inf")
    same = (
        (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)) if ours.dtype.kind == "f" else ours == theirs
    )
    if bool(same.all()):
        return 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    gap = np.abs(a - b)[~same].max()
    return float("inf") if not np.isfinite(gap) else float(gap / max(scale, SMALLEST_SCALE))


def _same_shapes(ours: Outputs, theirs: Outputs) -> bool:
    return [value.shape for value in ours] == [value.shape for value in theirs]


def _reference(network: Network, images: Tensor) -> Outputs:
    try:
        if isinstance(network.source, onnx.ModelProto):
            return run_part(onnx_runner(network.source), images.numpy(), len(images))
        with torch.no_grad():
            return tuple(value.numpy() for value in as_tuple(network.source.module()(images)))
    except Exception as error:
        raise MethodError(
            "malformed_model",
            f"The network cannot be run on images of shape {tuple(images.shape)}: {_reason(error)}",
            hint="Run it yourself with random images of this shape, and export it again.",
        ) from error


def _ours(network: Network, images: Tensor) -> Outputs:
    try:
        with evaluating(network.module):
            return tuple(value.numpy() for value in as_tuple(network.module(images)))
    except MemoryError:
        raise
    except Exception as error:
        raise MethodError(
            "import_mismatch",
            f"Our copy cannot be run on images of shape {tuple(images.shape)}, though the file can: "
            f"{_reason(error)}",
            hint=_OTHERWISE,
        ) from error


def _reason(error: Exception) -> str:
    return shortened(" ".join(str(error).split("Exception raised from", 1)[0].split()), 300)


def _refuse_nothing_finite(network: Network, images: Tensor, outputs: Outputs) -> None:
    """A network that answers noise with NaN and infinity alone can be compared with nothing."""
    floats = [value for value in outputs if value.dtype.kind == "f" and value.size]
    if not floats or any(np.isfinite(value).any() for value in floats):
        return
    values = ((name, value) for name, value in _their_values(network, images) if value.dtype.kind == "f")
    name = next((name for name, value in values if not np.isfinite(value).all()), None)
    node = None if name is None else _node_of(network, name)
    where = f"; the first such number comes from the node {quoted(node)}" if node else ""
    raise MethodError(
        "malformed_model",
        f"The network answers random images with nothing but NaN and infinite numbers{where}.",
        layer=node,
        hint="Look for negative variances, divisions by zero and weights that are too large.",
    )


def _first_difference(network: Network, images: Tensor) -> tuple[str | None, float]:
    """The first node, in execution order, whose value differs, by the file's name for it."""
    theirs = dict(_their_values(network, images))
    recorder = _Recorder(network.module)
    with torch.no_grad():
        recorder.run(images)
    for name, value in recorder.values.items():
        own = network.values.get(name)
        if own in theirs and (off := difference(value, theirs[own])) > TOLERANCE:
            return _node_of(network, own), off
    return None, float("inf")


def _their_values(network: Network, images: Tensor) -> Iterator[tuple[str, NDArray[Any]]]:
    if not isinstance(network.source, onnx.ModelProto):
        module = network.source.module()
        assert isinstance(module, fx.GraphModule)
        recorder = _Recorder(module)
        with torch.no_grad():
            recorder.run(images)
        yield from recorder.values.items()
        return
    model = onnx.ModelProto()
    model.CopyFrom(network.source)
    wanted = [name for name in dict.fromkeys(network.values.values()) if name != network.input_name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = onnx_session(model)
    shape = session.get_inputs()[0].shape
    turned = layout_of([size if isinstance(size, int) else None for size in shape], tuple(images.shape))
    fed = images if turned == "NCHW" else images.permute(0, 2, 3, 1)
    yield from zip(wanted, session.run(wanted, {network.input_name: fed.contiguous().numpy()}), strict=True)


def onnx_session(model: onnx.ModelProto) -> Any:
    """A session without fusions, so that every value of the graph can be read."""
    return open_session(model.SerializeToString(), optimise=False)


def _node_of(network: Network, value: str) -> str:
    if not isinstance(network.source, onnx.ModelProto):
        nodes = {node.name: node for node in network.source.graph.nodes}
        return layer_of(nodes[value]) if value in nodes else value
    graph = network.source.graph
    for name, node in zip(node_names(graph), graph.node, strict=True):
        if value in node.output:
            return name
    return value


class _Recorder(fx.Interpreter):
    """Keeps every tensor that a graph computes, in execution order."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, NDArray[Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op in ("call_function", "call_module"):
            self.values[n.name] = result.detach().numpy().copy()
        return result
