"""Bytes of an ONNX file -> a ModelProto that is whole, self-contained and made of operators we can read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from basisconv.errors import MethodError
from basisconv.formats.names import Names

MAX_ELEMENTS: Final = 1 << 31  # of one tensor; ONNX files themselves end at 2 GB
MAX_SIDE: Final = 8192  # pixels of an image's side
_DOMAINS: Final = ("", "ai.onnx")
_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FAMILIES: Final = "Export it with the standard ONNX operators (domain ai.onnx) and inference mode."


def parse(data: bytes) -> ModelProto:
    """The file as a checked model. Local functions are inlined, so that the graph alone is the network.

    Raises MethodError: malformed_model, external_data_not_allowed, unsupported_operator, resource_limit.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # google.protobuf.message.DecodeError, whatever its implementation
        raise MethodError(
            "malformed_model",
            f"The file does not parse as ONNX ({len(data)} bytes): {error}.",
            hint="It may be cut off: compare its size and checksum with the original.",
        ) from error
    if not model.graph.node:
        raise MethodError("malformed_model", "The ONNX file holds no graph, or a graph without nodes.")
    refuse_external_data(model)
    _check_operators(model)
    if model.functions:
        model = inline_local_functions(model)
        _check_operators(model)
    _check_tensors(model)
    _check_values(model.graph)
    _check_schema(model)
    return model


def node_names(graph: GraphProto) -> list[str]:
    """Every node's public name: its own, or its operator and a number; made unique."""
    names = Names({node.name for node in graph.node if node.name})
    seen: set[str] = set()
    result, count = [], dict[str, int]()
    for node in graph.node:
        number = count.get(node.op_type, 0)
        count[node.op_type] = number + 1
        if node.name and node.name not in seen:
            seen.add(node.name)
            result.append(node.name)
        else:
            result.append(names.unique(node.name or f"{node.op_type}_{number}"))
    return result


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor in the file: initialisers, sparse ones, attributes, those of subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
    for info in model.training_info:
        yield from _graph_tensors(info.initialization)
        yield from _graph_tensors(info.algorithm)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
            yield sparse.values
            yield sparse.indices
        for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            yield from _graph_tensors(graph)


def refuse_external_data(model: ModelProto) -> None:
    """Raises external_data_not_allowed when any tensor's bytes lie outside the file."""
    outside = [
        tensor
        for tensor in all_tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data
    ]
    if outside:
        where = {entry.key: entry.value for entry in outside[0].external_data}.get("location", "another file")
        raise MethodError(
            "external_data_not_allowed",
            f"The tensor {outside[0].name!r} lies in {where!r}, outside the ONNX file, "
            f"as {len(outside)} tensors do.",
            hint="Save it as one file: onnx.save(onnx.load('model.onnx'), 'single.onnx'), "
            "or torch.onnx.export(…, external_data=False).",
        )


def _check_operators(model: ModelProto) -> None:
    local = {(function.domain, function.name) for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 1))
    named = zip(node_names(model.graph), model.graph.node, strict=True)
    inner = ((f"{f.name}/{n.name}", n) for f in model.functions for n in f.node)
    for name, node in [*named, *inner]:
        if (node.domain, node.op_type) in local:
            continue
        reason = _why_not(node, opset)
        if reason:
            raise MethodError(
                "unsupported_operator",
                f"The node {name!r} uses the operator {_full_name(node)}: {reason}.",
                layer=name,
                hint=_FAMILIES,
            )


def _full_name(node: NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _why_not(node: NodeProto, opset: int) -> str | None:
    if node.domain not in _DOMAINS:
        return f"the domain {node.domain!r} is not part of the ONNX standard"
    if not onnx.defs.has(node.op_type):
        return "ONNX has no such operator"
    if node.op_type in _CONTROL_FLOW:
        return "control flow is not supported"
    if node.op_type in _RANDOM:
        return "its output is random, so that no copy of the network can be checked"
    if node.op_type == "DeformConv":
        return "deformable convolutions are not supported"
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if flags.get("training_mode"):
        return "it is in training mode, where its output depends on the rest of the batch"
    try:
        onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return f"opset {opset} does not have it"
    return None


def _check_tensors(model: ModelProto) -> None:
    """Sizes that agree with the bytes, and finite numbers; the culprit is named by the node that uses it."""
    for tensor in all_tensors(model):
        elements = math.prod(tensor.dims)
        if any(size < 0 for size in tensor.dims) or elements > MAX_ELEMENTS:
            raise MethodError(
                "malformed_model",
                f"The tensor {tensor.name!r} has the impossible shape {tuple(tensor.dims)}.",
                layer=_user_of(model.graph, tensor.name),
            )
        if tensor.data_type not in _FLOATS:
            continue
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:
            raise MethodError(
                "malformed_model",
                f"The tensor {tensor.name!r} of shape {tuple(tensor.dims)} "
                f"does not hold its numbers: {error}.",
                layer=_user_of(model.graph, tensor.name),
            ) from error
        _check_finite(model.graph, tensor, values)


def _check_finite(graph: GraphProto, tensor: TensorProto, values: np.ndarray) -> None:
    # One infinite number alone is a bound (Clip, Pad with -inf before a max pool), not a weight.
    bad = np.isnan(values) if values.size == 1 else ~np.isfinite(values.astype(np.float32, copy=False))
    count = int(np.count_nonzero(bad))
    if count:
        layer = _user_of(graph, tensor.name)
        raise MethodError(
            "malformed_model",
            f"The weights {tensor.name!r} hold {count} numbers of {values.size} that are NaN or infinite.",
            layer=layer,
            hint="The network diverged while it was trained, or the file is damaged.",
        )


def _user_of(graph: GraphProto, value: str) -> str | None:
    """The first node that reads a value, or that holds it as a Constant."""
    names = node_names(graph)
    for name, node in zip(names, graph.node, strict=True):
        if value and value in node.input:
            return name
        if value in {attribute.t.name for attribute in node.attribute if attribute.HasField("t")}:
            follower = _user_of(graph, node.output[0]) if value != node.output[0] else None
            return follower or name
    return None


def _check_values(graph: GraphProto) -> None:
    """Every value that a node reads is an input, an initialiser or another node's output."""
    known = {""} | {item.name for item in [*graph.input, *graph.initializer]}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    known |= {output for node in graph.node for output in node.output}
    for name, node in zip(node_names(graph), graph.node, strict=True):
        for value in node.input:
            if value not in known:
                raise MethodError(
                    "malformed_model",
                    f"The node {name!r} ({node.op_type}) reads {value!r}, which is neither an input, "
                    "nor a stored weight, nor the output of a node.",
                    layer=name,
                )
    for output in graph.output:
        if output.name not in known:
            raise MethodError("malformed_model", f"Nothing computes the network's output {output.name!r}.")


def _check_schema(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise MethodError(
            "malformed_model", f"The ONNX checker refuses the file: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:500]
