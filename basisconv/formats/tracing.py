"""Run a graph once and note every node's output shape, and the values that only shapes decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx

from basisconv.errors import MethodError

SMALL: Final = 64  # numbers; axes, pads, sizes and shapes are shorter


@dataclass
class Trace:
    """One run: node -> shape of its output, and node -> its value where no image decides it."""

    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    values: dict[fx.Node, Tensor] = field(default_factory=dict)


def trace(module: fx.GraphModule, images: Tensor, names: Mapping[fx.Node, str]) -> Trace:
    """Raises malformed_model naming the node (as `names` call it) that cannot be computed."""
    recorder = _Recorder(module, names)
    with torch.no_grad():
        recorder.run(images)
    return recorder.trace


def shape_only(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose value the image's numbers cannot change: stored values, shapes, what follows from them."""
    known: set[fx.Node] = set()
    for node in graph.nodes:
        source = node.op == "get_attr" or node.meta.get("onnx_op_type") in ("Shape", "Size")
        inputs = node.all_input_nodes
        if source or (node.op == "call_function" and inputs and known.issuperset(inputs)):
            known.add(node)
    return known


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, names: Mapping[fx.Node, str]) -> None:
        super().__init__(module)
        self.trace = Trace()
        self._names = names
        self._shape_only = shape_only(module.graph)

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _cannot_run(self._names.get(n, n.name), n, error) from error
        if isinstance(result, Tensor):
            self.trace.shapes[n] = tuple(result.shape)
            if n in self._shape_only and result.numel() <= SMALL:
                self.trace.values[n] = result.detach().clone()
        return result


def _cannot_run(name: str, node: fx.Node, error: Exception) -> MethodError:
    reason = " ".join(str(error).split("\n\n", 1)[0].split())[:300]
    kind = node.meta.get("onnx_op_type", "")
    return MethodError(
        "malformed_model",
        f"The node {name!r} {f'({kind}) ' if kind else ''}cannot be computed: {reason}",
        layer=name,
        hint="Check that the network's declared input size is one that it takes.",
    )
