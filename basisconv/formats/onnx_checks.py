"""Bytes of an ONNX file -> a ModelProto that is whole, self-contained and made of operators we can read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from basisconv.errors import MethodError
from basisconv.formats.names import Names, quoted, shortened

MAX_ELEMENTS: Final = 1 << 31  # of one tensor; ONNX files themselves end at 2 GB
MAX_SIDE: Final = 8192  # pixels of an image's side
_DOMAINS: Final = ("", "ai.onnx")
_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
# What the importer reads; texts, complex numbers and numbers of less than a byte are not among them.
_READABLE: Final = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    }
)
MAX_NODES: Final = 10_000  # of the graph, its functions' nodes wherever they are called; YOLOv8x has 400
MAX_AXES: Final = 16
MAX_OPSET: Final = 1_000
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
MAX_FUNCTIONS: Final = 500  # exporters write one for each kind of block
_EXPORT_AGAIN: Final = "Export it again, and look at it with onnx.checker.check_model(path, full_check=True)."
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
            f"The file does not parse as ONNX ({len(data):,} bytes): {_first_line(error).rstrip('.')}.",
            hint="It may be cut off: compare its size and checksum with the original.",
        ) from error
    if not model.graph.node:
        raise MethodError(
            "malformed_model", "The ONNX file holds no graph, or a graph without nodes.", hint=_EXPORT_AGAIN
        )
    refuse_external_data(model)
    _check_size(model)
    _check_operators(model)
    if model.functions:
        model = _inlined(model)
        _check_operators(model)
    _check_tensors(model)
    _check_values(model.graph)
    _check_schema(model)
    return model


def _check_size(model: ModelProto) -> None:
    """Nodes, with a function's own for every call of it: calls of calls of calls grow without end."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(nodes: Iterable[NodeProto], callers: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            called = (node.domain, node.op_type)
            if called in callers:
                raise MethodError(
                    "malformed_model",
                    f"The function {quoted(node.op_type)} of the ONNX file calls itself.",
                    hint=_EXPORT_AGAIN,
                )
            if called in bodies and called not in sizes:
                sizes[called] = size_of(bodies[called], (*callers, called))
            total += sizes.get(called, 1)
        return total

    if len(bodies) > MAX_FUNCTIONS:
        raise _too_many("functions of its own", len(bodies), MAX_FUNCTIONS)
    if (count := size_of(model.graph.node, ())) > MAX_NODES:
        raise _too_many("nodes, its functions written out", count, MAX_NODES)


def _too_many(what: str, count: int, limit: int) -> MethodError:
    said = f"{count:,}" if count < 10**15 else f"about 10^{len(str(count)) - 1}"
    return MethodError(
        "resource_limit",
        f"The network has {said} {what}; the limit is {limit:,}.",
        hint="Simplify it before the upload, for example with onnxsim or onnxruntime's offline optimiser.",
    )


def _inlined(model: ModelProto) -> ModelProto:
    try:
        return inline_local_functions(model)
    except Exception as error:
        raise MethodError(
            "malformed_model",
            f"The functions of the ONNX file cannot be written out: {_first_line(error)}",
            hint=_EXPORT_AGAIN,
        ) from error


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
            f"The tensor {quoted(outside[0].name)} lies in {quoted(where)}, outside the ONNX file"
            f"{f', as do {len(outside) - 1} others' if len(outside) > 1 else ''}.",
            hint="Save it as one file: onnx.save(onnx.load('model.onnx'), 'single.onnx'), "
            "or torch.onnx.export(…, external_data=False).",
        )


def _check_operators(model: ModelProto) -> None:
    local = {(function.domain, function.name) for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 1))
    if not 1 <= opset <= MAX_OPSET:
        raise MethodError(
            "malformed_model", f"The ONNX file says opset {opset:,}, which is none.", hint=_EXPORT_AGAIN
        )
    named = zip(node_names(model.graph), model.graph.node, strict=True)
    inner = ((f"{f.name}/{n.name}", n) for f in model.functions for n in f.node)
    for name, node in [*named, *inner]:
        if (node.domain, node.op_type) in local:
            continue
        reason = _why_not(node, opset)
        if reason:
            raise MethodError(
                "unsupported_operator",
                f"The node {quoted(name)} uses the operator {_full_name(node)}: {reason}.",
                layer=name,
                hint=_FAMILIES,
            )


def _full_name(node: NodeProto) -> str:
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return kind if len(kind) <= 100 and kind.isprintable() else quoted(kind)


def _why_not(node: NodeProto, opset: int) -> str | None:
    if node.domain not in _DOMAINS:
        return f"the domain {quoted(node.domain)} is not part of the ONNX standard"
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
        if not tensor.ByteSize() and not tensor.dims:
            continue  # the empty sparse tensor of an attribute that has none
        _check_shape(model.graph, tensor)
        if tensor.data_type not in _READABLE:
            known = tensor.data_type in TensorProto.DataType.values()
            kind = TensorProto.DataType.Name(tensor.data_type) if known else f"the type {tensor.data_type}"
            raise MethodError(
                "unsupported_operator" if known and tensor.data_type else "malformed_model",
                f"The tensor {quoted(tensor.name)} is stored as {kind}, which we do not read.",
                layer=_user_of(model.graph, tensor.name),
                hint="Export the network in float32.",
            )
        try:
            values = numpy_helper.to_array(tensor)
        except Exception as error:
            raise MethodError(
                "malformed_model",
                f"The tensor {quoted(tensor.name)} of shape {_shape(tensor)} "
                f"does not hold its numbers: {_first_line(error).rstrip('.')}.",
                layer=_user_of(model.graph, tensor.name),
                hint=_EXPORT_AGAIN,
            ) from error
        if tensor.data_type in _FLOATS:
            _check_finite(model.graph, tensor, values)


def _check_shape(graph: GraphProto, tensor: TensorProto) -> None:
    if len(tensor.dims) > MAX_AXES:
        reason = f"has {len(tensor.dims):,} axes; {MAX_AXES} is the limit"
    elif any(size < 0 for size in tensor.dims):
        reason = f"has the impossible shape {_shape(tensor)}"
    elif (elements := math.prod(tensor.dims)) > MAX_ELEMENTS:
        reason = f"claims {elements:,} numbers by its shape {_shape(tensor)}; the limit is {MAX_ELEMENTS:,}"
    else:
        return
    raise MethodError(
        "malformed_model",
        f"The tensor {quoted(tensor.name)} {reason}.",
        layer=_user_of(graph, tensor.name),
        hint=_EXPORT_AGAIN,
    )


def _shape(tensor: TensorProto) -> str:
    return shortened(str(tuple(tensor.dims)))


def _check_finite(graph: GraphProto, tensor: TensorProto, values: np.ndarray) -> None:
    # One infinite number alone is a bound (Clip, Pad with -inf before a max pool), not a weight.
    bad = np.isnan(values) if values.size == 1 else ~np.isfinite(values.astype(np.float32, copy=False))
    count = int(np.count_nonzero(bad))
    if count:
        layer = _user_of(graph, tensor.name)
        raise MethodError(
            "malformed_model",
            f"The weights {quoted(tensor.name)} hold {count:,} numbers of {values.size:,} that are NaN or "
            "infinite.",
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
                    f"The node {quoted(name)} ({node.op_type}) reads {quoted(value)}, which is neither an "
                    "input, nor a stored weight, nor the output of a node.",
                    layer=name,
                    hint=_EXPORT_AGAIN,
                )
    for output in graph.output:
        if output.name not in known:
            raise MethodError(
                "malformed_model",
                f"Nothing computes the network's output {quoted(output.name)}.",
                hint=_EXPORT_AGAIN,
            )


def _check_schema(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise MethodError(
            "malformed_model",
            f"The ONNX checker refuses the file: {_first_line(error).rstrip('.')}.",
            hint=_EXPORT_AGAIN,
        ) from error


def _first_line(error: Exception) -> str:
    return shortened(" ".join(str(error).split()), 500)
