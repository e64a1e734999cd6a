"""Turn what only shapes decide into numbers, and let every batch size through.

Exporters write `x.view(len(x), -1)` as Shape, Gather, Concat and Reshape, or bake the batch size of the
export into a Reshape's constant. The image size is fixed for us, so that all of it is known but the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from basisconv.formats.network import as_tuple, evaluating
from basisconv.formats.tracing import Trace, shape_only

# Operators whose second and further inputs are sizes, axes, pads or bounds: Python numbers serve them better
# (no copy from the device, and torch.export can follow).
_TAKE_NUMBERS = (
    "Reshape Squeeze Unsqueeze Slice Pad Expand Split Tile Resize Upsample Clip TopK "
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp"
)
_NUMERIC: Final = frozenset(_TAKE_NUMBERS.split())


def fix_sizes(graph: fx.Graph, runs: Sequence[Trace], baked: bool) -> None:
    """Rewrite the graph in place. `runs`: two batch sizes, or the one that is baked into the file."""
    known = shape_only(graph)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        kind = node.meta.get("onnx_op_type")
        if kind == "Reshape" and _fix_reshape(graph, node, runs, known, baked):
            continue
        if kind in _NUMERIC:
            _fix_numbers(node, runs, known)
    graph.eliminate_dead_code()


def _fix_reshape(
    graph: fx.Graph, node: fx.Node, runs: Sequence[Trace], known: set[fx.Node], baked: bool
) -> bool:
    """Reshape to the sizes that were seen, with -1 where they follow the batch."""
    source, target = node.args[0], node.args[1]
    shapes = [run.shapes.get(node) for run in runs]
    if not isinstance(target, fx.Node) or target not in known or source in known or None in shapes:
        return False
    sizes = list(zip(*[shape for shape in shapes if shape is not None], strict=True))
    free = [axis for axis, seen in enumerate(sizes) if len(set(seen)) > 1]
    if baked and sizes:
        free = [0]  # the batch leads in every reshape that we could let through; checked by frees_batch
    if len(free) > 1:
        return False
    wanted = [-1 if axis in free else seen[0] for axis, seen in enumerate(sizes)]
    with graph.inserting_before(node):
        new = graph.call_function(torch.reshape, (source, wanted))
    new.meta.update(node.meta)
    for run in runs:
        run.shapes[new] = run.shapes[node]
    node.replace_all_uses_with(new)
    node.meta["replaced_by"] = new
    return True


def _fix_numbers(node: fx.Node, runs: Sequence[Trace], known: set[fx.Node]) -> None:
    def number(argument: Any) -> Any:
        if not isinstance(argument, fx.Node) or argument not in known:
            return argument
        seen = [run.values.get(argument) for run in runs]
        first = seen[0]
        if first is None or any(value is None or not torch.equal(value, first) for value in seen):
            return argument
        return first.tolist()

    node.args = (*node.args[:1], *(number(argument) for argument in node.args[1:]))
    node.kwargs = {name: number(argument) for name, argument in node.kwargs.items()}


def frees_batch(module: torch.nn.Module, images: Tensor, baked: int) -> bool:
    """Whether the module answers a larger batch as it answers its parts; `images`: three times `baked`."""
    with evaluating(module):
        try:
            whole = as_tuple(module(images))
            parts = [as_tuple(module(part)) for part in images.split(baked)]
        except Exception:
            return False
    joined = [torch.cat(outputs) for outputs in zip(*parts, strict=True)]
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * _scale(b))
        for a, b in zip(whole, joined, strict=True)
    )


def _scale(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 1.0
