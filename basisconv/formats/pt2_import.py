"""The ATen graph of an ExportedProgram -> a graph whose layers are real submodules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from basisconv.cost import LAYERS
from basisconv.errors import MethodError
from basisconv.formats.attributes import module_path
from basisconv.formats.names import Names, quoted

aten = torch.ops.aten
_CONVS: Final = (
    *(aten.conv1d.default, aten.conv1d.padding),
    *(aten.conv2d.default, aten.conv2d.padding),
    *(aten.conv3d.default, aten.conv3d.padding),
    aten.convolution.default,
)
_CONV_TRANSPOSES: Final = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
_CLASSES: Final[dict[int, Any]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}  # by the weight's rank
_TRANSPOSED: Final[dict[int, Any]] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_TRANSPOSES: Final = (aten.t.default, aten.permute.default, aten.transpose.int)
_RESHAPES: Final = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default)  # noqa: SLF001
_DROPOUTS: Final = ("aten.dropout", "aten.dropout_", "aten.feature_dropout")
EVAL: Final = "Call model.eval() before torch.export.export."


@dataclass
class Imported:
    """A program as a module of real layers."""

    module: fx.GraphModule
    layers: dict[str, str]  # public name -> path, in execution order
    values: dict[str, str]  # node of `module` -> node of the program


def convert(program: ExportedProgram, batch: int | None) -> Imported:
    """The program as a graph module. `batch`: the size baked into it, which reshapes let go of."""
    return _Importer(program, batch).run()


class _Importer:
    def __init__(self, program: ExportedProgram, batch: int | None) -> None:
        self.program = program
        self.batch = batch
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.made: dict[fx.Node, Any] = {}  # node of the program -> node here
        self.stored = _stored(program)
        self.names = Names()
        self.paths: dict[tuple[Any, ...], str] = {}
        self.layers: dict[str, str] = {}
        self.makers: dict[Any, Callable[[fx.Node], fx.Node | None]] = {
            **dict.fromkeys(_CONVS, self._conv),
            **dict.fromkeys(_CONV_TRANSPOSES, self._conv_transpose),
            aten.linear.default: self._linear,
            aten.addmm.default: self._addmm,
            aten.mm.default: self._mm,
            aten.matmul.default: self._mm,
            aten.batch_norm.default: self._batch_norm,
            aten._native_batch_norm_legit_no_training.default: self._native_batch_norm,  # noqa: SLF001
        }

    def run(self) -> Imported:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                if node not in self.stored:
                    self.made[node] = self.graph.placeholder(_plain(node.name))
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = [self._take(value) for value in node.args[0]]
                self.graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        self.graph.eliminate_dead_code(_has_effect)
        self._own_stored()
        module = fx.GraphModule(self.root, self.graph, "Network").eval()
        module.graph.lint()
        alive = set(self.graph.nodes)
        values = {
            new.name: old.name for old, new in self.made.items() if isinstance(new, fx.Node) and new in alive
        }
        return Imported(module, self.layers, values)

    def _call(self, node: fx.Node) -> None:
        target = node.target
        if "_assert" in str(target) or str(target).startswith("aten.sym_constrain"):
            return
        if node in self.made:
            return
        _refuse_training(node)
        maker = self.makers.get(target)
        made = maker(node) if maker else None
        if made is None:
            args = fx.map_arg(node.args, self._take)
            kwargs = fx.map_arg(node.kwargs, self._take)
            made = self.graph.create_node("call_function", target, self._free(node, args), kwargs)
        self.made[node] = made

    def _take(self, node: fx.Node) -> fx.Node:
        """The node here that stands for a node of the program; stored values are read on first use."""
        if node not in self.made:
            path, _ = self.stored[node]
            self.made[node] = self.graph.create_node("get_attr", path)
        made: fx.Node = self.made[node]
        return made

    def _free(self, node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Sizes of a reshape that a baked batch size leads, with -1 in its place."""
        if self.batch is None or node.target not in _RESHAPES:
            return args
        shape = node.meta["val"].shape
        if not len(shape) or shape[0] != self.batch or any(not isinstance(size, int) for size in shape):
            return args
        return (args[0], [-1, *shape[1:]], *args[2:])

    def _own_stored(self) -> None:
        """Parameters and buffers that the graph reads itself, under their own names."""
        taken: dict[str, str] = {}
        for node in self.graph.nodes:
            if node.op != "get_attr":
                continue
            path = str(node.target)
            if path not in taken:
                value = self._value(path)
                taken[path] = self._place(path)
                folder, _, name = taken[path].rpartition(".")
                owner = _folder(self.root, folder)
                if isinstance(value, nn.Parameter) and value.numel() > 1:
                    owner.register_parameter(name, nn.Parameter(value.detach().clone()))
                else:
                    owner.register_buffer(name, value.detach().clone())
            node.target = taken[path]

    def _value(self, path: str) -> Tensor:
        source = self.program.state_dict if path in self.program.state_dict else self.program.constants
        value: Tensor = source[path]
        return value

    def _place(self, path: str) -> str:
        """Where a value or a module may live: its own path, unless another layer stands in the way."""
        wanted = module_path(path)
        parts = wanted.split(".")
        blocked = any(".".join(parts[:end]) in self.paths.values() for end in range(1, len(parts) + 1))
        below = any(taken.startswith(f"{wanted}.") for taken in self.paths.values())
        return self.names.unique(wanted.replace(".", "_") if blocked or below else wanted)

    def _layer(self, source: fx.Node, key: tuple[Any, ...], make: Callable[[], nn.Module]) -> fx.Node:
        weight = self.stored[key[0]][0]
        if key not in self.paths:
            stem = weight.removesuffix(".weight")
            path = self._place(stem if stem != weight else f"{weight}_layer")
            self.paths[key] = path
            module = make().eval()
            folder, _, name = path.rpartition(".")
            _folder(self.root, folder).add_module(name, module)
            if isinstance(module, LAYERS):
                self.layers[path] = path
        return self.graph.create_node("call_module", self.paths[key], (self._take(source),))

    def _tensor(self, node: Any) -> Tensor | None:
        """A stored float32 tensor behind an argument; None where it is absent or computed."""
        if not isinstance(node, fx.Node) or node not in self.stored:
            return None
        value = self._value(self.stored[node][0])
        return value.detach() if value.dtype == torch.float32 else None

    def _conv(self, node: fx.Node) -> fx.Node | None:
        said = _arguments(node)
        if said.get("transposed"):
            return self._conv_transpose(node)
        weight, bias = self._tensor(said["weight"]), self._tensor(said.get("bias"))
        absent = said.get("bias") is None
        if weight is None or weight.dim() not in _CLASSES or (bias is None and not absent):
            return None
        source, axes = said["input"], weight.dim() - 2
        if source.meta["val"].dim() != weight.dim():
            return None
        padding, groups = said.get("padding", 0), int(said.get("groups", 1))
        geometry = (
            _each(said.get("stride", 1), axes),
            padding if isinstance(padding, str) else _each(padding, axes),
            _each(said.get("dilation", 1), axes),
        )

        def make() -> nn.Module:
            outputs, inputs, *kernel = weight.shape
            shape = (inputs * groups, outputs, tuple(kernel), *geometry, groups)
            conv = nn.utils.skip_init(_CLASSES[weight.dim()], *shape, bias=not absent)
            return _filled(conv, weight=weight, bias=bias)

        return self._layer(source, (said["weight"], said.get("bias"), *geometry, groups), make)

    def _conv_transpose(self, node: fx.Node) -> fx.Node | None:
        said = _arguments(node)
        weight, bias = self._tensor(said["weight"]), self._tensor(said.get("bias"))
        absent = said.get("bias") is None
        if weight is None or weight.dim() not in _TRANSPOSED or (bias is None and not absent):
            return None
        if said["input"].meta["val"].dim() != weight.dim():
            return None
        groups, axes = int(said["groups"]), weight.dim() - 2
        steps = [_each(said[name], axes) for name in ("stride", "padding", "output_padding", "dilation")]

        def make() -> nn.Module:
            inputs, outputs, *kernel = weight.shape
            stride, padding, extra, dilation = steps
            shape = (inputs, outputs * groups, tuple(kernel), stride, padding, extra, groups, not absent)
            layer = nn.utils.skip_init(_TRANSPOSED[weight.dim()], *shape, dilation)
            return _filled(layer, weight=weight, bias=bias)

        key = (said["weight"], said.get("bias"), *steps, groups, "transposed")
        return self._layer(said["input"], key, make)

    def _linear(self, node: fx.Node) -> fx.Node | None:
        said = _arguments(node)
        return self._dense(said["input"], said["weight"], said.get("bias"), turned=False)

    def _addmm(self, node: fx.Node) -> fx.Node | None:
        said = _arguments(node)
        weight = said["mat2"]
        if said.get("beta", 1) != 1 or said.get("alpha", 1) != 1 or not _is_transpose(weight):
            return None
        return self._dense(said["mat1"], weight.args[0], said["self"], turned=False)

    def _mm(self, node: fx.Node) -> fx.Node | None:
        source, weight = node.args[0], node.args[1]
        if _is_transpose(weight):
            return self._dense(source, weight.args[0], None, turned=False)  # type: ignore[union-attr]
        return self._dense(source, weight, None, turned=True)

    def _dense(self, source: Any, weight_node: Any, bias_node: Any, turned: bool) -> fx.Node | None:
        weight, bias = self._tensor(weight_node), self._tensor(bias_node)
        if weight is None or weight.dim() != 2 or source in self.stored or source.meta["val"].dim() < 2:
            return None
        if bias_node is not None and (bias is None or bias.dim() != 1):
            return None

        def make() -> nn.Module:
            values = weight.T if turned else weight
            outputs, inputs = values.shape
            linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias is not None)
            return _filled(linear, weight=values, bias=bias)

        return self._layer(source, (weight_node, bias_node, "linear"), make)

    def _batch_norm(self, node: fx.Node) -> fx.Node | None:
        return self._norm(_arguments(node))

    def _native_batch_norm(self, node: fx.Node) -> fx.Node | None:
        if any(user.args[1] != 0 and user.users for user in node.users):
            return None  # somebody reads the saved statistics
        made = self._norm(_arguments(node))
        for user in node.users if made is not None else ():
            self.made[user] = made  # operator.getitem(…, 0): the one output that is read
        return made

    def _norm(self, said: dict[str, Any]) -> fx.Node | None:
        order = ("weight", "bias", "running_mean", "running_var")
        tensors = {name: self._tensor(said.get(name)) for name in order}
        kinds: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
        rank = said["input"].meta["val"].dim()
        mean = tensors["running_mean"]
        if mean is None or tensors["running_var"] is None or rank not in kinds:
            return None
        affine = said.get("weight") is not None
        if affine and (tensors["weight"] is None or tensors["bias"] is None):
            return None
        eps, momentum = float(said["eps"]), float(said["momentum"])
        key = (said["weight"] if affine else said["running_mean"], *(said.get(name) for name in order), eps)

        def make() -> nn.Module:
            return _filled(kinds[rank](len(mean), eps, momentum, affine=affine), **tensors)

        return self._layer(said["input"], key, make)


def _has_effect(node: fx.Node) -> bool:
    """Whether a node matters though nobody reads it: inputs, outputs, and operators that write in place."""
    if node.op in ("placeholder", "output"):
        return True
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable  # noqa: SLF001


def _stored(program: ExportedProgram) -> dict[fx.Node, tuple[str, InputKind]]:
    """Placeholders that stand for parameters, buffers and constants -> their path."""
    kinds = {
        spec.arg.name: (spec.target, spec.kind) for spec in program.graph_signature.input_specs if spec.target
    }
    return {
        node: (str(kinds[node.name][0]), kinds[node.name][1])
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in kinds
    }


def _refuse_training(node: fx.Node) -> None:
    text = str(node.target)
    said = _arguments(node) if isinstance(node.target, torch._ops.OpOverload) else {}  # noqa: SLF001
    layer = layer_of(node)
    if "batch_norm" in text and (said.get("training") or text.startswith("aten._native_batch_norm_legit.")):
        raise MethodError(
            "malformed_model",
            f"The batch norm {quoted(layer)} was exported in training mode: "
            "its output depends on the rest of the batch.",
            layer=layer,
            hint=EVAL,
        )
    if text.startswith(_DROPOUTS) and said.get("train"):
        raise MethodError(
            "malformed_model",
            f"The dropout {quoted(layer)} was exported in training mode: its output is random.",
            layer=layer,
            hint=EVAL,
        )


def layer_of(node: fx.Node) -> str:
    """The path of the module that a node came from, or the node's own name."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed([str(path) for path, _ in stack.values()]), "")
    return path or node.name


def _arguments(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by the names of the operator's schema."""
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return {
        **{a.name: a.default_value for a in schema.arguments if a.has_default_value()},
        **given,
        **node.kwargs,
    }


def _is_transpose(node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.target not in _TRANSPOSES:
        return False
    return tuple(node.args[1:]) in ((), ([1, 0],), (0, 1), (1, 0)) or list(node.args[1:2]) == [[1, 0]]


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """A number per axis; one alone stands for all."""
    numbers = [value] if isinstance(value, int) else list(value)
    return tuple(numbers * axes if len(numbers) == 1 else numbers)


def _plain(name: str) -> str:
    return name if name.isidentifier() else "images"


def _folder(root: nn.Module, path: str) -> nn.Module:
    """The module at a path, made of empty modules where there is none."""
    for name in path.split(".") if path else []:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    with torch.no_grad():
        for name, value in tensors.items():
            if value is not None:
                getattr(module, name).copy_(value)
    return module
