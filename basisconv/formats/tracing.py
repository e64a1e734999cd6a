"""Run a graph once and note every node's output shape, and the values that only shapes decide."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx

from basisconv.errors import MethodError
from basisconv.formats.budget import SMALL, Budget, Counting, TooMuch, refusal
from basisconv.formats.names import quoted, shortened

# How torch says that memory is used up.
_MEMORY: Final = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")


@dataclass
class Trace:
    """One run: node -> shape of its output, and node -> its value where no image decides it."""

    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    values: dict[fx.Node, Tensor] = field(default_factory=dict)


def trace(
    module: fx.GraphModule, images: Tensor, names: Mapping[fx.Node, str], budget: Budget | None = None
) -> Trace:
    """Raises malformed_model naming the node (as `names` call it) that cannot be computed, resource_limit
    naming the one that takes too much."""
    watched = budget is not None and budget != Budget()
    recorder = _Recorder(module, names, Counting(budget) if budget and watched else None)
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
    def __init__(
        self, module: fx.GraphModule, names: Mapping[fx.Node, str], counting: Counting | None
    ) -> None:
        super().__init__(module)
        self._counting = counting
        self.trace = Trace()
        self._names = names
        self._shape_only = shape_only(module.graph)

    def run_node(self, n: fx.Node) -> Any:
        try:
            with self._counting or nullcontext():
                result = super().run_node(n)
        except (MemoryError, KeyboardInterrupt):
            raise
        except TooMuch as error:
            raise refusal(self._names.get(n, n.name), _kind(n), error) from error
        except Exception as error:
            name = self._names.get(n, n.name)
            if any(
                sign in str(error) for sign in _MEMORY
            ):  # whether a file or a job is at fault, others know
                raise MemoryError(
                    f"the node {quoted(name)} ({_kind(n) or n.op}) does not fit in it"
                ) from error
            raise _cannot_run(name, n, error) from error
        if isinstance(result, Tensor):
            self.trace.shapes[n] = tuple(result.shape)
            if n in self._shape_only and result.numel() <= SMALL:
                self.trace.values[n] = result.detach().clone()
        return result


def _kind(node: fx.Node) -> str:
    return str(node.meta.get("onnx_op_type", ""))


def _cannot_run(name: str, node: fx.Node, error: Exception) -> MethodError:
    text = str(error)
    # torch adds what was tried in its own source, and whence it was called
    said = text.split("Exception raised from", 1)[0].split("\n\n", 1)[0]
    reason = shortened(" ".join(said.split()), 300)
    kind = _kind(node)
    return MethodError(
        "malformed_model",
        f"The node {quoted(name)} {f'({kind}) ' if kind else ''}cannot be computed: {reason}",
        layer=name,
        hint="Check that the network's declared input size is one that it takes.",
    )
