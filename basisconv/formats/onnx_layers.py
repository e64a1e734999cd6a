"""ONNX nodes with stored weights -> submodules: Conv, Gemm, MatMul and BatchNormalization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from onnx import NodeProto, TensorProto, numpy_helper
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from basisconv.errors import MethodError
from basisconv.formats.attributes import attribute
from basisconv.formats.names import Names, quoted, shortened
from basisconv.formats.onnx_import import Raw
from basisconv.formats.onnx_padding import (
    SAME,
    attributes,
    crop_to,
    ends,
    explicit_pads,
    pad_same,
    same_crop,
    same_padding,
    torch_order,
)
from basisconv.formats.tracing import Trace

_EXPORT_AGAIN = "Export it again, and look at it with onnx.checker.check_model(path, full_check=True)."
_CONVS: dict[int, type[_ConvNd]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}  # by the weight's rank
_TRANSPOSED: dict[int, type[_ConvNd]] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}


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
        try:
            module = makers[node.op_type](raw, node, name, len(run.shapes.get(source, ())))
        except (MethodError, MemoryError):
            raise
        except Exception as error:  # torch's layers check what they are given in many ways
            reason = shortened(" ".join(str(error).split()), 300)
            raise _malformed(name, f"cannot be made a layer: {reason}") from error
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
        if node.op_type == "Conv":
            source = _pad(graph, source, node, cast(_ConvNd, module), run, fixed)
        new = graph.call_module(path, (source,))
        if node.op_type == "ConvTranspose":
            new = _crop(graph, new, node, cast(_ConvNd, module))
    new.meta.update(old.meta)
    raw.names[new] = raw.names.pop(old)
    for value, producer in raw.values.items():
        if producer is old:
            raw.values[value] = new
    if old in run.shapes:
        run.shapes[new] = run.shapes[old]
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def _pad(graph: fx.Graph, x: fx.Node, node: NodeProto, conv: _ConvNd, run: Trace, fixed: bool) -> fx.Node:
    """Padding that torch's layer cannot say, in front of it; what it can say is set on the module."""
    mode = attributes(node).get("auto_pad", b"NOTSET")
    if mode in SAME:
        arguments = (conv.kernel_size, conv.stride, conv.dilation, mode == b"SAME_UPPER")
        strided = max(conv.stride) > 1
        if strided and not fixed:
            return graph.call_function(pad_same, (x, *arguments))
        pads = same_padding(run.shapes[x][2:], *arguments)
        if strided and any(pads):  # it follows the size: a layer that runs on several may need several
            return graph.call_function(F.pad, (x, torch_order(pads)))
    else:
        pads = explicit_pads(node, len(conv.kernel_size))
    first, last = ends(pads)
    if first == last and min(pads) >= 0:
        conv.padding = first
        # The layer derives this list from its padding when it is made; other padding modes read it.
        conv._reversed_padding_repeated_twice = list(torch_order(pads))  # noqa: SLF001
        return x
    return graph.call_function(F.pad, (x, torch_order(pads)))


def _crop(graph: fx.Graph, y: fx.Node, node: NodeProto, conv: _ConvNd) -> fx.Node:
    """What a transposed convolution takes off its output, which torch's layer can say where it is even."""
    said = attributes(node)
    mode = said.get("auto_pad", b"NOTSET")
    if "output_shape" in said:
        size = tuple(said["output_shape"])[-len(conv.kernel_size) :]
        return graph.call_function(crop_to, (y, size, mode == b"SAME_UPPER"))
    if mode in SAME:
        pads = same_crop(
            conv.kernel_size, conv.stride, conv.dilation, conv.output_padding, mode == b"SAME_UPPER"
        )
    else:
        pads = explicit_pads(node, len(conv.kernel_size))
    first, last = ends(pads)
    if first == last and min(pads) >= 0:
        conv.padding = first
        return y
    return graph.call_function(F.pad, (y, torch_order([-pad for pad in pads])))


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
            f"The weights {quoted(node.input[1])} of {quoted(name)} have the empty shape "
            f"{tuple(weight.shape)}.",
            layer=name,
            hint=_EXPORT_AGAIN,
        )


def _conv(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    weight, bias = stored(raw, node, 1), stored(raw, node, 2)
    if (
        weight is None
        or weight.dim() != rank
        or rank not in _CONVS
        or (bias is None and not _absent(node, 2))
    ):
        return None
    groups, geometry = _geometry(weight, node, name)
    outputs, inputs, *kernel = weight.shape
    if outputs % groups:
        raise _malformed(name, f"has {outputs} outputs, which {groups} groups cannot share")
    module = nn.utils.skip_init(
        _CONVS[rank],
        inputs * groups,
        outputs,
        tuple(kernel),
        geometry["strides"],
        0,
        geometry["dilations"],
        groups,
        bias=bias is not None,
    )
    return _filled(module, weight, bias)


def _conv_transpose(raw: Raw, node: NodeProto, name: str, rank: int) -> nn.Module | None:
    weight, bias = stored(raw, node, 1), stored(raw, node, 2)
    known = weight is not None and weight.dim() == rank and rank in _TRANSPOSED
    if weight is None or not known or (bias is None and not _absent(node, 2)):
        return None
    groups, geometry = _geometry(weight, node, name)
    inputs, outputs, *kernel = weight.shape
    if inputs % groups:
        raise _malformed(name, f"has {inputs} inputs, which {groups} groups cannot share")
    module = nn.utils.skip_init(
        _TRANSPOSED[rank],
        inputs,
        outputs * groups,
        tuple(kernel),
        geometry["strides"],
        0,
        geometry["output_padding"],
        groups,
        bias is not None,
        geometry["dilations"],
    )
    return _filled(module, weight, bias)


def _geometry(weight: Tensor, node: NodeProto, name: str) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Groups, and what is said per axis, checked against the weight's own axes."""
    _sized(weight, node, name)
    said, axes = attributes(node), weight.dim() - 2
    groups = int(said.get("group", 1))
    if groups < 1:
        raise _malformed(name, f"has {groups} groups")
    if list(said.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        raise _malformed(
            name,
            f"says kernel_shape {shortened(str(said['kernel_shape']))}, "
            f"its weights are {tuple(weight.shape)}",
        )
    usual = {"strides": 1, "dilations": 1, "output_padding": 0, "pads": 0}
    found: dict[str, tuple[int, ...]] = {}
    for key, value in usual.items():
        wanted = 2 * axes if key == "pads" else axes
        found[key] = tuple(said.get(key) or (value,) * wanted)
        if len(found[key]) != wanted:
            raise _malformed(
                name, f"says {key} {shortened(str(list(found[key])))}, where {wanted} numbers are expected"
            )
    return groups, found


def _malformed(name: str, what: str) -> MethodError:
    return MethodError("malformed_model", f"The node {quoted(name)} {what}.", layer=name, hint=_EXPORT_AGAIN)


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
