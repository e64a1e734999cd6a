"""Stretches of the network that one tensor enters and one leaves: what can be judged, and mended, by itself.

A rule on the graph, not on an architecture: a residual block, two convolutions of a plain network, a dense
block, or, where skips cross everything, the whole network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, fx, nn

from basisconv.calibrate import signed_sum
from basisconv.cost import evaluating
from basisconv.graph import arguments, last_uses, run_node

LAYERS = 2  # in a window at least: one layer alone has been fitted already


@dataclass(frozen=True)
class Window:
    """Nodes `start` to `stop` - 1 of the order: `source` goes in, `out` comes out, `layers` are fitted."""

    start: int
    stop: int
    source: fx.Node
    out: fx.Node
    layers: tuple[str, ...]


@dataclass(frozen=True)
class _Cut:
    """After node `at` of the order everything that is still needed is one tensor, the value of `node`."""

    at: int
    node: fx.Node
    numel: int


def windows(order: Sequence[fx.Node], module: nn.Module, example: Tensor, fitted: set[str]) -> list[Window]:
    """The narrowest windows with at least two of the `fitted` layers each, front to back, without overlap.

    A window ends where the value is largest: after the activation that follows its last layer, but before
    a pooling, which would hide what the layers got wrong.
    """
    cuts = _cuts(order, module, example)
    places = [i for i, node in enumerate(order) if node.op == "call_module" and node.target in fitted]
    found: list[Window] = []
    if not places:
        return found
    enter = max((cut for cut in cuts if cut.at < places[0]), key=lambda cut: cut.at, default=None)
    inside: list[str] = []
    for place, following in zip(places, [*places[1:], len(order)], strict=True):
        inside.append(str(order[place].target))
        ways_out = [cut for cut in cuts if place <= cut.at < following]
        if enter is None or not ways_out or (len(inside) < LAYERS and following < len(order)):
            continue
        leave = max(ways_out, key=lambda cut: (cut.numel, cut.at))
        found.append(Window(enter.at + 1, leave.at + 1, enter.node, leave.node, tuple(inside)))
        enter, inside = leave, []
    return found


def second_moments(
    order: Sequence[fx.Node],
    module: nn.Module,
    found: Sequence[Window],
    batches: Iterable[Tensor],
    generator: Generator,
) -> dict[fx.Node, Tensor]:
    """E of the sum over positions of g g' at every window's end, (C, C) float64 on the CPU.

    g: gradient of the outputs' random combination (calibrate.signed_sum), as fisher() has it at layers.
    Empty for a network that torch cannot differentiate.
    """
    ends = [window.out for window in found]
    moments: dict[fx.Node, Tensor] = {}
    sizes: list[float] = []
    images = 0
    try:
        for x in batches:
            images += len(x)
            for end, gradient in _gradients(order, module, ends, x, sizes, generator).items():
                rows = channels_last(gradient).double().flatten(0, -2)
                moments[end] = moments.get(end, 0) + (rows.mT @ rows).cpu()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an in-place step that autograd forbids, say
        return {}
    return {end: total / images for end, total in moments.items()}


def _gradients(
    order: Sequence[fx.Node],
    module: nn.Module,
    ends: Sequence[fx.Node],
    x: Tensor,
    sizes: list[float],
    generator: Generator,
) -> dict[fx.Node, Tensor]:
    """Of the outputs' random combination, at those `ends` on which it depends."""
    with evaluating(module), torch.enable_grad():
        values, outputs = _watched(order, module, set(ends), x)
        total = signed_sum(outputs, sizes, generator)
    if total is None:
        return {}
    gradients = torch.autograd.grad(total, [values[end] for end in ends], allow_unused=True)
    return {end: gradient for end, gradient in zip(ends, gradients, strict=True) if gradient is not None}


def channels_last(value: Tensor) -> Tensor:
    """The channels of maps, their second axis, moved to where those of anything else are."""
    return value.movedim(1, -1) if value.dim() == 4 else value


def _watched(
    order: Sequence[fx.Node], module: nn.Module, ends: set[fx.Node], x: Tensor
) -> tuple[dict[fx.Node, Tensor], Any]:
    """One forward pass; the values at `ends` (as their users see them) and the outputs."""
    # of the leaf a copy: a network may change its input in place
    values = arguments(order, x.detach().clone().requires_grad_().clone())
    for node in order:
        run_node(module, node, values)
        if node in ends:
            values[node] = values[node].clone()  # what comes after may change it in place
    (output,) = (node for node in order if node.op == "output")
    return values, fx.node.map_arg(output.args[0], values.__getitem__)


def _cuts(order: Sequence[fx.Node], module: nn.Module, example: Tensor) -> list[_Cut]:
    dead, values, moving = last_uses(list(order)), arguments(order, example), set[fx.Node]()
    found: list[_Cut] = []
    live: dict[fx.Node, int] = {}  # floats that depend on the input, and their size
    with evaluating(module):
        for at, node in enumerate(order):
            if node.op == "output":
                break
            run_node(module, node, values)
            if node.op == "placeholder" or any(source in moving for source in node.all_input_nodes):
                moving.add(node)
                live |= _floats(node, values[node])
            for gone in dead[node]:
                values.pop(gone, None)
                live.pop(gone, None)
            if len(live) == 1:
                ((only, numel),) = live.items()
                if numel:
                    found.append(_Cut(at, only, numel))
    return found


def _floats(node: fx.Node, value: object) -> dict[fx.Node, int]:
    """The node when its value is a tensor of floats, or something that may hold some (size 0: no cut)."""
    if isinstance(value, Tensor):
        return {node: value.numel()} if value.is_floating_point() and value.dim() >= 2 else {}
    return {} if isinstance(value, int | float | bool | torch.Size) else {node: 0}
