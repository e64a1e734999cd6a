"""The network as an fx graph: who calls whom, and where a convolution's output meets a shortcut."""

import inspect
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from basisconv.cost import evaluating
from basisconv.nn import Factorized
from basisconv.outputs import output_tensors

_ATEN = torch.ops.aten  # what a torch.export program calls
_ADDS = {operator.add, operator.iadd, torch.add, _ATEN.add.Tensor, _ATEN.add_.Tensor, "add", "add_"}
_PASSES = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in eval mode they change nothing
_SMALL = 1e-3  # of the largest batch-norm scale: a channel scaled by less has no say in the sum


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Factorized) or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module, example: Tensor) -> fx.Graph | None:
    """The module's graph, or None where it cannot be traced or the trace computes something else."""
    try:
        graph = module.graph if isinstance(module, fx.GraphModule) else _traced(module)
        with evaluating(module):
            expected, found = module(example), fx.Interpreter(module, graph=graph).run(example)
        pairs = list(zip(output_tensors(expected), output_tensors(found), strict=True))
    except Exception:  # the tracer runs the module's own code with proxies: anything may happen
        return None
    return graph if pairs and all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs) else None


def _traced(module: nn.Module) -> fx.Graph:
    """Arguments beside the image have their defaults, on which the network may branch."""
    _, *others = inspect.signature(module.forward).parameters.values()
    given = {p.name: p.default for p in others if p.default is not inspect.Parameter.empty}
    return _Tracer().trace(module, concrete_args=given or None)


@dataclass(frozen=True)
class Meeting:
    """A layer's output reaches `add` through affine steps only; `other` is the sum's other operand."""

    add: fx.Node
    other: fx.Node
    norms: tuple[str, ...]  # batch norms on the way, by path


def meeting(module: nn.Module, node: fx.Node) -> Meeting | None:
    """Follow the layer's only user through batch norms to an addition of two nodes, if there is one."""
    norms: list[str] = []
    while len(node.users) == 1:
        user = next(iter(node.users))
        if _is_add(user):
            other = user.args[1] if user.args[0] is node else user.args[0]
            if not isinstance(other, fx.Node) or other is node:
                return None
            return Meeting(user, other, tuple(norms))
        if user.op != "call_module":
            return None
        step = module.get_submodule(str(user.target))
        if isinstance(step, nn.BatchNorm2d | nn.BatchNorm1d) and step.running_var is not None:
            norms.append(str(user.target))
        elif not isinstance(step, _PASSES):
            return None
        node = user
    return None


def _is_add(node: fx.Node) -> bool:
    calls = node.op in ("call_function", "call_method") and node.target in _ADDS
    return calls and len(node.args) == 2 and not node.kwargs


def norm_after(module: nn.Module, node: fx.Node) -> str | None:
    """The path of the batch norm that is the layer's only user, and serves no other."""
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    if user.op != "call_module":
        return None
    norm = module.get_submodule(str(user.target))
    called = [n for n in node.graph.nodes if n.op == "call_module"]
    alone = sum(module.get_submodule(str(n.target)) is norm for n in called) == 1
    return str(user.target) if isinstance(norm, nn.BatchNorm2d) and alone else None


def inverse_scale(module: nn.Module, norms: tuple[str, ...]) -> Tensor | float:
    """1 / (product of the batch norms' scales) per channel; 0 for channels that hardly count."""
    scale: Tensor | float = 1.0
    for path in norms:
        norm = module.get_submodule(path)
        assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d)
        assert norm.running_var is not None
        gamma = 1.0 if norm.weight is None else norm.weight.detach()
        scale = scale * gamma / (norm.running_var + norm.eps).sqrt()
    if not isinstance(scale, Tensor):
        return scale
    return torch.where(scale.abs() > _SMALL * scale.abs().max(), 1 / scale, 0.0)


def schedule(graph: fx.Graph, module: nn.Module) -> list[fx.Node]:
    """Execution order in which, where two branches meet, the other branch comes before the layer.

    The layer fitted last can then make up for what both branches lost; where either could come last, it is
    the one with more weights. Nodes move only past nodes that change nothing in place.
    """
    order, settled = list(graph.nodes), set[fx.Node]()
    for node in sorted(_layers(graph, module), key=lambda n: -_weights(module, n)):
        found = meeting(module, node)
        if found is None or found.add in settled:
            continue
        settled.add(found.add)
        here, there = order.index(node), order.index(found.other)
        if there < here:
            continue
        passed = order[here : there + 1]
        needed = _ancestors(found.other) | {found.other}
        if node in needed or any(_in_place(n, module) for n in passed):
            continue
        order[here : there + 1] = [n for n in passed if n in needed] + [n for n in passed if n not in needed]
    return order


def _layers(graph: fx.Graph, module: nn.Module) -> list[fx.Node]:
    plain = (nn.Conv2d, nn.Linear)
    called = (node for node in graph.nodes if node.op == "call_module")
    return [node for node in called if isinstance(module.get_submodule(str(node.target)), plain)]


def _weights(module: nn.Module, node: fx.Node) -> int:
    return sum(p.numel() for p in module.get_submodule(str(node.target)).parameters())


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = list(node.all_input_nodes)
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack += current.all_input_nodes
    return seen


def _in_place(node: fx.Node, module: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    name = name.partition(".")[0]  # aten's names go on with the overload: relu_.default
    in_place_name = name.endswith("_") or name in ("iadd", "imul", "isub", "itruediv", "setitem")
    return node.op.startswith("call") and (in_place_name or bool(node.kwargs.get("inplace")))


def last_uses(order: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Per node, the values that nothing needs after it."""
    seen: set[fx.Node] = set()
    dead: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(order):
        fresh = [value for value in (*node.all_input_nodes, node) if value not in seen]
        seen.update(fresh)
        dead[node] = list(dict.fromkeys(fresh))
    return dead


def arguments(order: Sequence[fx.Node], x: Tensor) -> dict[fx.Node, Any]:
    """The network's inputs: the images, and what further arguments are by default."""
    image, *others = [node for node in order if node.op == "placeholder"]
    return {image: x, **{node: node.args[0] if node.args else None for node in others}}


def run_node(network: nn.Module, node: fx.Node, values: dict[fx.Node, Any]) -> None:
    """Compute one node of `network` from the values before it and put it beside them.

    Placeholders (see `arguments`) and the output compute nothing.
    """
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    if node.op == "call_module":
        values[node] = network.get_submodule(str(node.target))(*args, **kwargs)
    elif node.op == "call_function":
        values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    elif node.op == "call_method":
        values[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    elif node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        values[node] = getattr(network.get_submodule(owner), name)


def calls(order: list[fx.Node], module: nn.Module) -> dict[str, list[int]]:
    """Positions of every module's calls, by the first of its paths; in the order of the first calls."""
    paths = {child: path for path, child in module.named_modules()}
    places: dict[str, list[int]] = {}
    for i, node in enumerate(order):
        if node.op == "call_module":
            places.setdefault(paths[module.get_submodule(str(node.target))], []).append(i)
    return places
