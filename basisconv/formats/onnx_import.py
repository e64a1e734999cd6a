"""The one file that knows onnx2fx: a checked ModelProto -> a torch.fx graph of plain functions.

onnx2fx 0.0.1 turns every ONNX operator into a function call and makes attribute names out of value names,
so that `a.b` and `a_b` would overwrite each other. A copy of the model is therefore prepared first: its
values are numbered, its nodes carry their public names, its Constant nodes become initialisers.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import fx

from basisconv.errors import MethodError
from basisconv.formats.names import quoted, shortened
from basisconv.formats.onnx_checks import node_names
from basisconv.formats.onnx_padding import conv_transpose


@dataclass
class Raw:
    """What onnx2fx made of a model."""

    module: fx.GraphModule
    values: dict[str, fx.Node]  # name of a value in the file -> the graph node that computes it
    nodes: dict[str, NodeProto]  # public node name -> the node as it stands in the file
    constants: dict[str, TensorProto]  # name of a value in the file -> its stored tensor
    names: dict[fx.Node, str]  # graph node -> public name of the ONNX node it came from


def convert(model: ModelProto) -> Raw:
    """Raises unsupported_operator when onnx2fx knows no way to say a node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from onnx2fx.graph_builder import GraphBuilder  # its import takes 0.3 s: only where it is used

    prepared, numbers = _prepare(model)
    names = node_names(model.graph)
    produced_by = {out: node.name for node in prepared.graph.node for out in node.output}
    builder = _build(GraphBuilder, prepared)
    values = {name: builder.env[number] for name, number in numbers.items() if number in builder.env}
    made = {builder.env[number]: name for number, name in produced_by.items() if number in builder.env}
    from_node = {node: made[node] for node in builder.module.graph.nodes if node in made}  # execution order
    nodes = dict(zip(names, model.graph.node, strict=True))
    for node, name in from_node.items():
        if nodes[name].op_type == "ConvTranspose":
            node.target = conv_transpose
    return Raw(builder.module, values, nodes, constants_of(model), from_node)


def constants_of(model: ModelProto) -> dict[str, TensorProto]:
    """Every stored value of the main graph by value name: initialisers, Constant nodes, Identities of both.

    The older torch exporter stores equal parameters once and passes them on through Identity nodes.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and (tensor := constant_tensor(node)) is not None:
            stored[node.output[0]] = tensor
        elif node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    return stored


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node, whichever attribute holds it; None for strings and sparse ones."""
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in kinds:
            value = onnx.helper.get_attribute_value(attribute)
            return numpy_helper.from_array(np.asarray(value, dtype=kinds[attribute.name]))
    return None


def _build(builder_class: Any, prepared: ModelProto) -> Any:
    from onnx2fx.exceptions import UnsupportedOpError

    current: NodeProto | None = None

    def in_order() -> None:
        """The nodes as they stand, which the ONNX checker found sorted; its own sorting is quadratic."""
        nonlocal current
        for current in builder.model.graph.node:
            handler, domain, _ = builder._resolve_handler(current)  # noqa: SLF001
            made = handler(builder, current)
            builder._tag_operator_node(current, made, domain)  # noqa: SLF001
            builder._register_outputs(current, made, domain)  # noqa: SLF001

    try:
        builder = builder_class(prepared)
        builder._convert_nodes = in_order  # noqa: SLF001
        builder.module = builder.build()
    except UnsupportedOpError as error:
        raise _unsupported(current, "the importer has no such operator at this opset") from error
    except MemoryError:
        raise
    except Exception as error:
        reason = shortened(" ".join(str(error).split()), 300)
        raise _unsupported(current, f"the importer cannot read it here ({reason})") from error
    return builder


def _unsupported(node: NodeProto | None, reason: str) -> MethodError:
    what = "The graph's stored values" if node is None else f"The node {quoted(node.name)} ({node.op_type})"
    return MethodError(
        "unsupported_operator",
        f"{what} cannot be taken: {reason}.",
        layer=None if node is None else node.name,
        hint="Export it with another opset (17 and 18 are read best), or without that operator.",
    )


def _prepare(model: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    copy = ModelProto()
    copy.CopyFrom(model)
    for node, name in zip(copy.graph.node, node_names(model.graph), strict=True):
        node.name = name
    constants = constants_of(copy)
    _spell_out_pads(copy, constants)
    _drop_unused_outputs(copy)
    kept = [n for n in copy.graph.node if n.op_type != "Constant" or n.output[0] not in constants]
    moved = [n for n in copy.graph.node if n.op_type == "Constant" and n.output[0] in constants]
    for node in moved:
        tensor = copy.graph.initializer.add()
        tensor.CopyFrom(constants[node.output[0]])
        tensor.name = node.output[0]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    del copy.graph.value_info[:]
    return copy, _number_values(copy)


def _number_values(model: ModelProto) -> dict[str, str]:
    """Rename every value to v0, v1 …; gives old -> new."""
    graph = model.graph
    numbers: dict[str, str] = {"": ""}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"v{len(numbers)}")

    for item in [*graph.input, *graph.initializer, *graph.output]:
        item.name = number(item.name)
    for node in graph.node:
        renamed = [number(name) for name in node.input], [number(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(renamed[0])
        node.output.extend(renamed[1])
    numbers.pop("")
    return numbers


def _drop_unused_outputs(model: ModelProto) -> None:
    """Masks of Dropout, saved statistics of batch norms, indices of max pools that nobody reads."""
    read = {name for node in model.graph.node for name in node.input}
    read |= {output.name for output in model.graph.output}
    for node in model.graph.node:
        while len(node.output) > 1 and node.output[-1] not in read:
            node.output.pop()


def _spell_out_pads(model: ModelProto, constants: dict[str, TensorProto]) -> None:
    """Pad with an `axes` input (opset 18), which onnx2fx ignores, as Pad over all axes."""
    nodes = [
        node for node in model.graph.node if node.op_type == "Pad" and len(node.input) > 3 and node.input[3]
    ]
    if not nodes:
        return
    inferred = model
    with contextlib.suppress(Exception):  # a failed inference leaves ranks unknown, and the node as it is
        inferred = onnx.shape_inference.infer_shapes(model)
    ranks = {
        i.name: len(i.type.tensor_type.shape.dim) for i in [*inferred.graph.value_info, *inferred.graph.input]
    }
    for node in nodes:
        rank, pads, axes = (
            ranks.get(node.input[0]),
            constants.get(node.input[1]),
            constants.get(node.input[3]),
        )
        if rank is None or pads is None or axes is None:
            continue
        full = np.zeros((2, rank), np.int64)
        full[:, numpy_helper.to_array(axes)] = numpy_helper.to_array(pads).reshape(2, -1)
        tensor = numpy_helper.from_array(full.reshape(-1), f"{node.output[0]}/all_pads")
        model.graph.initializer.append(tensor)
        constants[tensor.name] = tensor
        node.input[1] = tensor.name
        del node.input[3:]
