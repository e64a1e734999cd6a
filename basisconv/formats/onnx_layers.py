"""ONNX nodes with stored weights -> submodules: Conv, Gemm, MatMul and BatchNormalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import NodeProto, TensorProto, numpy_helper
from torch import Tensor, fx, nn

from basisconv.errors import MethodError
from basisconv.formats.names import Names, attribute
from basisconv.formats.onnx_import import Raw
from basisconv.formats.tracing import Trace

Padding = tuple[int, int, int, int]  # top, left, bottom, right: ONNX's order


@dataclass
class Layers:
    """Submodules by path, in execution order, and the nodes that each stands for."""

    modules: dict[str, nn.Module] = field(default_factory=dict)
    nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def extract(raw: Raw, run: Trace, names: Names, fixed_size: bool) -> Layers:
    """Put a submodule in the place of every node that has stored weights, in `raw`'s graph itself.

    `fixed_size`: the file fixes the image size, so that automatic padding is a number.
    """
    layers, paths = Layers(), dict[tuple[Any, ...], str]()
    makers: dict[str, Callable[..., nn.Module | None]] = {
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "BatchNormalization": _batch_norm,
    }
    for fx_node, name in list(raw.names.items()):
        node = raw.nodes[name]
        if node.op_type not in makers or fx_node.op != "call_function":
            continue
        source = fx_node.args[0]
        if not isinstance(source, fx.Node) or node.input[0] in raw.constants:
            continue
        module = makers[node.op_type](raw, node, name, len(run.shapes.get(source, ())))
        if module is None:
            continue
        key = (*node.input[1:], node.op_type, *sorted(a.SerializeToString() for a in node.attribute))
        path = paths.setdefault(key, "") or names.unique(attribute(name))
        if not paths[key]:
            paths[key], layers.modules[path] = path, module
            raw.module.add_module(path, module)  # torch.fx asks for it
        layers.nodes[path] = (*layers.nodes.get(path, ()), name)
        _replace(raw, fx_node, source, path, node, layers.modules[path], run, fixed_size)
    return layers


def _replace(  # the surgery needs both sides
    raw: Raw,
    old: fx.Node,
    source: fx.Node,
    path: str,
    node: NodeProto,
    module: nn.Module,
    run: Trace,
    fixed: bool,
) -> None:
    graph = raw.module.graph
    with graph.inserting_before(old):
        if isinstance(module, nn.Conv2d):
            source = _pad(graph, source, node, module, run, fixed)
        new = graph.call_module(path, (source,))
    new.meta.update(old.meta)
    raw.names[new] = raw.names.pop(old)
    for value, producer in raw.values.items():
        if producer is old:
            raw.values[value] = new
    if old in run.shapes:
        run.shapes[new] = run.shapes[old]
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def _pad(graph: fx.Graph, x: fx.Node, node: NodeProto, conv: nn.Conv2d, run: Trace, fixed: bool) -> fx.Node:
    """Padding that nn.Conv2d cannot say, in front of it; what it can say is set on the module."""
    mode = attributes(node).get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        arguments = (conv.kernel_size, conv.stride, conv.dilation, mode == b"SAME_UPPER")
        strided = max(conv.stride) > 1
        if strided and not fixed:
            return graph.call_function(pad_same, (x, *arguments))
        pads = same_padding(run.shapes[x][2:], *arguments)
    else:
        pads = explicit_pads(node)
    top, left, bottom, right = pads
    if (top, left) == (bottom, right) and min(pads) >= 0:
        conv.padding = (top, left)
        # nn.Conv2d derives this list from its padding when it is made; other padding modes read it.
        conv._reversed_padding_repeated_twice = [left, left, top, top]  # noqa: SLF001
        return x
    return graph.call_function(F.pad, (x, (left, right, top, bottom)))


def explicit_pads(node: NodeProto) -> Padding:
    """The `pads` of a two-dimensional Conv; zeros where it has none."""
    pads = attributes(node).get("pads") or (0, 0, 0, 0)
    return (pads[0], pads[1], pads[2], pads[3])


def same_padding(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool
) -> Padding:
    """ONNX's SAME_UPPER and SAME_LOWER: output = ceil(input / stride); the odd one goes last or first."""
    first, last = [], []
    for extent, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-extent // s) - 1) * s + (k - 1) * d + 1 - extent, 0)
        small, large = total // 2, total - total // 2
        first.append(small if upper else large)
        last.append(large if upper else small)
    return (first[0], first[1], last[0], last[1])


def pad_same(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool
) -> Tensor:
    """Automatic padding of images whose size the file leaves open."""
    top, left, bottom, right = same_padding(x.shape[2:], kernel, stride, dilation, upper)
    return F.pad(x, (left, right, top, bottom))


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def stored(raw: Raw, node: NodeProto, index: int) -> Tensor | None:
    """The stored float32 tensor behind an input of a node; None where it is absent or computed."""
    if len(node.input) <= index or node.input[index] not in raw.constants:
        return None
    tensor = raw.constants[node.input[index]]
    if tensor.data_type != TensorProto.FLOAT:
        return None
    return torch.from_numpy(np.array(numpy_helper.to_array(tensor), dtype=np.float32))


def _absent(node: NodeProto, index: int) -> bool:
    return len(node.input) <= index or not node.input[index]


def _sized(weight: Tensor, node: NodeProto, name: str) -> None:
    if weight.numel() == 0:
        raise MethodError(
            "malformed_model",
            f"The weights {node.input[1]!r} of {name!r} have the empty shape {tuple(weight.shape)}.",
            layer=name,
        )


def _conv(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    weight, bias = stored(raw, node, 1), stored(raw, node, 2)
    if weight is None or weight.dim() != 4 or rank != 4 or (bias is None and not _absent(node, 2)):
        return None
    _sized(weight, node, name)
    said = attributes(node)
    groups = int(said.get("group", 1))
    outputs, inputs, *kernel = weight.shape
    if groups < 1 or outputs % groups:
        raise MethodError(
            "malformed_model",
            f"{name!r} has {outputs} outputs, which {groups} groups cannot share.",
            layer=name,
        )
    if list(said.get("kernel_shape", kernel)) != kernel:
        raise MethodError(
            "malformed_model",
            f"{name!r} says kernel_shape {said['kernel_shape']}, its weights are {tuple(weight.shape)}.",
            layer=name,
        )
    module = nn.utils.skip_init(
        nn.Conv2d,
        inputs * groups,
        outputs,
        tuple(kernel),
        tuple(said.get("strides", (1, 1))),
        0,
        tuple(said.get("dilations", (1, 1))),
        groups,
        bias=bias is not None,
    )
    return _filled(module, weight, bias)


def _conv_transpose(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    weight, bias, said = stored(raw, node, 1), stored(raw, node, 2), attributes(node)
    top, left, bottom, right = explicit_pads(node)
    unusual = "output_shape" in said or said.get("auto_pad", b"NOTSET") != b"NOTSET"
    if weight is None or weight.dim() != 4 or rank != 4 or (bias is None and not _absent(node, 2)):
        return None
    if unusual or (top, left) != (bottom, right):
        return None
    _sized(weight, node, name)
    groups = int(said.get("group", 1))
    inputs, outputs, *kernel = weight.shape
    module = nn.utils.skip_init(
        nn.ConvTranspose2d,
        inputs,
        outputs * groups,
        tuple(kernel),
        tuple(said.get("strides", (1, 1))),
        (top, left),
        tuple(said.get("output_padding", (0, 0))),
        groups,
        bias is not None,
        tuple(said.get("dilations", (1, 1))),
    )
    return _filled(module, weight, bias)


def _gemm(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    weight, bias = stored(raw, node, 1), stored(raw, node, 2)
    said = attributes(node)
    if weight is None or rank != 2 or said.get("transA", 0) or (bias is None and not _absent(node, 2)):
        return None
    _sized(weight, node, name)
    weight = weight if said.get("transB", 0) else weight.T
    if bias is not None:
        if bias.numel() not in (1, len(weight)) or (bias.dim() > 1 and bias.shape[0] != 1):
            return None
        bias = float(said.get("beta", 1.0)) * bias.reshape(-1).expand(len(weight))
    return _linear(float(said.get("alpha", 1.0)) * weight, bias)


def _matmul(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    weight = stored(raw, node, 1)
    if weight is None or weight.dim() != 2 or rank < 2:
        return None
    _sized(weight, node, name)
    return _linear(weight.T, None)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    outputs, inputs = weight.shape
    return _filled(nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias is not None), weight, bias)


def _batch_norm(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    scale, shift, mean, variance = (stored(raw, node, index) for index in (1, 2, 3, 4))
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    if scale is None or shift is None or mean is None or variance is None or rank not in kinds:
        return None
    _sized(scale, node, name)
    # ONNX has no trained momentum to keep: torch's own default is used when statistics are estimated again.
    module = kinds[rank](len(scale), eps=float(attributes(node).get("epsilon", 1e-5)))
    with torch.no_grad():
        for target, value in (
            ("weight", scale),
            ("bias", shift),
            ("running_mean", mean),
            ("running_var", variance),
        ):
            getattr(module, target).copy_(value)
    return module.eval()


def _filled(module: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    with torch.no_grad():
        module.get_parameter("weight").copy_(weight)
        if bias is not None:
            module.get_parameter("bias").copy_(bias)
    return module.eval()
