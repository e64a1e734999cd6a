"""Network -> ONNX. An ONNX network comes back as the user's own graph, each replaced layer as two nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from basisconv.formats.export import program_of, quiet
from basisconv.formats.names import Names
from basisconv.formats.network import Network
from basisconv.formats.onnx_checks import node_names
from basisconv.formats.onnx_import import constant_tensor
from basisconv.formats.onnx_padding import attributes, explicit_pads
from basisconv.nn import Factorized

Weights = NDArray[np.float32]
_NORM = ("weight", "bias", "running_mean", "running_var")


def write(network: Network, compressed: fx.GraphModule) -> ModelProto:
    """The user's graph with the layers and weights of `compressed`: `network.module`, or a copy, changed.

    Topology, names, opset, inputs, outputs, dynamic axes and metadata are the user's, except that each
    replaced Conv, Gemm or MatMul is two nodes; the result passes onnx.checker.
    """
    assert isinstance(network.source, ModelProto), "a network from .pt2 goes through export_onnx"
    editor = _Editor(network.source)
    # Free values first: a layer that reads one as well then sees that its own differs, and gets a copy.
    for path, value in network.tensors.items():
        editor.set_value(value, _array(compressed.get_parameter(path)))
    for path, names in network.nodes.items():
        editor.update(names, compressed.get_submodule(path))
    model = editor.finish()
    onnx.checker.check_model(model)
    return model


def export_onnx(network: Network, compressed: fx.GraphModule) -> ModelProto:
    """ONNX of a network that came as .pt2, by torch.onnx.export; the batch stays open if it was open."""
    program = program_of(network, compressed)
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=[network.input_name],
            output_names=list(network.output_names),
        )
    assert exported is not None
    model: ModelProto = exported.model_proto
    for item in model.graph.input[:1]:
        if network.batch is None and item.type.tensor_type.shape.dim:
            item.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    return model


def _array(value: Tensor) -> Weights:
    return np.ascontiguousarray(value.detach().to("cpu", torch.float32).numpy())


class _Editor:
    """One pass over a copy of the user's graph."""

    def __init__(self, source: ModelProto) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(source)
        graph = self.model.graph
        self.public = dict(zip(node_names(graph), graph.node, strict=True))
        self.position = {node.output[0]: index for index, node in enumerate(graph.node)}
        self.values = Names({name for node in graph.node for name in [*node.input, *node.output]})
        self.node_names = Names(set(self.public))
        self.opset = max((e.version for e in source.opset_import if e.domain in ("", "ai.onnx")), default=1)
        self.replaced: dict[
            int, list[NodeProto]
        ] = {}  # position in the user's graph -> what stands there now
        self.unread: set[str] = set()  # values that replaced nodes read
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for value in set(node.input):
                self.readers.setdefault(value, []).append(node)
        self.stored = {tensor.name: tensor for tensor in graph.initializer}

    def update(self, names: Sequence[str], layer: nn.Module) -> None:
        """Let the nodes of one layer say what the layer has become."""
        nodes = [self.public[name] for name in names]
        if isinstance(layer, Factorized):
            shared: dict[str, str] = {}
            for name, node in zip(names, nodes, strict=True):
                self._split(name, node, layer, shared)
        elif isinstance(layer, nn.Linear):
            self._linear(nodes, layer)
        else:
            order = ("weight", "bias") if hasattr(layer, "kernel_size") else _NORM
            for index, name in enumerate(order, start=1):
                value = getattr(layer, name)
                if value is not None and not np.array_equal(self._read(nodes[0], index), _array(value)):
                    self._set_input(nodes, index, _array(value))

    def _read(self, node: NodeProto, index: int) -> Weights:
        """The stored value behind an input of a node; an empty array where there is none."""
        name = node.input[index] if len(node.input) > index else ""
        tensor = self._tensor(name)
        return np.empty(0, np.float32) if tensor is None else numpy_helper.to_array(tensor)

    def _tensor(self, name: str) -> TensorProto | None:
        """The stored tensor that a value is, Identity nodes followed; None for computed values."""
        if name in self.stored:
            return self.stored[name]
        node = self._producer(name)
        if node is None:
            return None
        return self._tensor(node.input[0]) if node.op_type == "Identity" else constant_tensor(node)

    def _producer(self, name: str) -> NodeProto | None:
        return self.model.graph.node[self.position[name]] if name in self.position else None

    def _linear(self, nodes: list[NodeProto], linear: nn.Linear) -> None:
        node, said = nodes[0], attributes(nodes[0])
        turned = bool(said.get("transB", 0))
        alpha, beta = np.float32(said.get("alpha", 1.0)), np.float32(said.get("beta", 1.0))
        weight = _array(linear.weight if turned else linear.weight.T)
        bias = None if linear.bias is None else _array(linear.bias)
        stored_bias = beta * self._read(node, 2).reshape(-1)
        same_bias = bias is None or (stored_bias.size > 0 and np.array_equal(bias, stored_bias + 0 * bias))
        if same_bias and np.array_equal(weight, alpha * self._read(node, 1)):
            return
        self._set_input(nodes, 1, weight)
        if node.op_type == "MatMul":
            for each in nodes if bias is not None else ():
                self._replace(each, self._with_bias(each, _array(linear.bias)))
            return
        if bias is not None:
            self._set_input(nodes, 2, bias)
        for each in nodes:  # alpha and beta are in the numbers now
            _refill(each.attribute, [_copied(e) for e in each.attribute if e.name not in ("alpha", "beta")])

    def _with_bias(self, node: NodeProto, bias: Weights) -> list[NodeProto]:
        """A MatMul that got a bias, which ONNX says as an Add."""
        product, add = NodeProto(), NodeProto()
        product.CopyFrom(node)
        product.output[0] = self.values.unique(f"{node.output[0]}/product")
        name = self._store(f"{node.output[0]}/bias", bias)
        add.CopyFrom(helper.make_node("Add", [product.output[0], name], [node.output[0]]))
        add.name = self.node_names.unique(f"{node.name or 'MatMul'}/bias")
        return [product, add]

    def _set_input(self, nodes: list[NodeProto], index: int, value: Weights) -> None:
        """Give an input of some nodes a new stored value: in place where nobody else reads it."""
        node = nodes[0]
        name = node.input[index] if len(node.input) > index else ""
        mine = {reader.output[0] for reader in nodes}
        alone = name and mine.issuperset(reader.output[0] for reader in self.readers.get(name, []))
        fits = self._read(node, index).size == value.size and list(node.input).count(name) == 1
        if alone and fits and not self._is_output(name):
            self._overwrite(name, value)
            return
        fresh = self._store(name or f"{node.output[0]}/{'bias' if index == 2 else 'weight'}", value)
        for reader in nodes:
            while len(reader.input) <= index:
                reader.input.append("")
            reader.input[index] = fresh
        if name:
            self.unread.add(name)

    def set_value(self, name: str, value: Weights) -> None:
        """A stored value outside the layers, such as a bias that is added by itself."""
        if not np.array_equal(value, self._read(NodeProto(input=[name]), 0)):
            self._overwrite(name, value)

    def _overwrite(self, name: str, value: Weights) -> None:
        """New numbers under a stored value's name, in its own type and shape."""
        node, old = self._producer(name), self._tensor(name)
        if node is not None and node.op_type == "Identity" and name not in self.stored:
            # Its source is somebody else's value: from now on this one is stored by itself.
            self._replace(node, [])
            self.unread.add(node.input[0])
            self._initialise(_like(old, value, name))
        elif node is None:
            self.stored[name].CopyFrom(_like(old, value, name))
        else:
            fresh = _like(old, value, old.name if old else "")
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("value", fresh))

    def _store(self, wanted: str, value: Weights) -> str:
        """A new initialiser."""
        name = self.values.unique(wanted)
        return self._initialise(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def _initialise(self, tensor: TensorProto) -> str:
        """Add an initialiser; where the file is so old that initialisers must be inputs, that too."""
        name = tensor.name
        self.model.graph.initializer.append(tensor)
        self.stored[name] = self.model.graph.initializer[-1]
        if self.model.ir_version < 4:
            self.model.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        return name

    def _is_output(self, name: str) -> bool:
        return any(output.name == name for output in self.model.graph.output)

    def _split(self, name: str, node: NodeProto, pair: Factorized, shared: dict[str, str]) -> None:
        """One node becomes two; `shared` holds the weights' names when several nodes are one layer."""
        first, second = pair.first, pair.second
        between = self.values.unique(f"{node.output[0]}/between")
        stem = node.input[1]
        turn = node.op_type == "MatMul"

        def weight(part: str, value: Tensor) -> str:
            if part not in shared:
                array = _array(value)
                shared[part] = self._store(f"{stem}/{part}", np.ascontiguousarray(array.T) if turn else array)
            return shared[part]

        inputs = [[node.input[0], weight("first", first.weight)], [between, weight("second", second.weight)]]
        if second.bias is not None and not turn:
            inputs[1].append(self._bias(node, second.bias, shared))
        if node.op_type == "Gemm" and self.opset < 11:  # there the third input is not optional
            for number, part in enumerate((first, second)):
                if len(inputs[number]) == 2:
                    inputs[number].append(
                        self._store(f"{stem}/zeros", np.zeros(len(part.weight), np.float32))
                    )
        made = []
        for number, word in enumerate(("first", "second")):
            new = helper.make_node(node.op_type, inputs[number], [between if number == 0 else node.output[0]])
            new.name = self.node_names.unique(f"{name}/{word}")
            new.attribute.extend(_attributes(node, pair, number))
            new.doc_string = node.doc_string
            new.domain = node.domain
            new.metadata_props.extend(node.metadata_props)
            made.append(new)
        if turn and second.bias is not None:
            made[1:] = self._with_bias(made[1], _array(second.bias))
        self._replace(node, made)
        self.unread.update(node.input[1:])

    def _bias(self, node: NodeProto, bias: Tensor, shared: dict[str, str]) -> str:
        """The pair's bias: the user's own stored value where it did not change."""
        if len(node.input) > 2 and np.array_equal(self._read(node, 2), _array(bias)):
            return node.input[2]
        if "bias" not in shared:
            shared["bias"] = self._store(f"{node.input[1]}/bias", _array(bias))
        return shared["bias"]

    def _replace(self, node: NodeProto, made: list[NodeProto]) -> None:
        self.replaced[self.position[node.output[0]]] = made

    def finish(self) -> ModelProto:
        """The edited model, without the weights that nobody reads any more."""
        graph = self.model.graph
        nodes = [new for index, node in enumerate(graph.node) for new in self.replaced.get(index, [node])]
        kept, gone = self._without_unread(nodes)
        _refill(graph.node, [_copied(node) for node in kept])
        _refill(
            graph.initializer, [_copied(tensor) for tensor in graph.initializer if tensor.name not in gone]
        )
        _refill(graph.input, [_copied(item) for item in graph.input if item.name not in gone])
        _refill(graph.value_info, [_copied(item) for item in graph.value_info if item.name not in gone])
        return self.model

    def _without_unread(self, nodes: list[NodeProto]) -> tuple[list[NodeProto], set[str]]:
        """The nodes without those that store what nobody reads any more, and the names of such values."""
        suspects, gone = set(self.unread), set[str]()
        while True:
            read = {name for node in nodes for name in node.input} | {o.name for o in self.model.graph.output}
            more = {name for name in suspects if name and name not in read} - gone
            if not more:
                return nodes, gone
            gone |= more
            idle = [n for n in nodes if n.op_type in ("Constant", "Identity") and n.output[0] in gone]
            suspects.update(name for node in idle for name in node.input)  # an Identity's source
            dropped = {node.output[0] for node in idle}
            nodes = [node for node in nodes if node.output[0] not in dropped]


def _like(old: TensorProto | None, value: Weights, name: str) -> TensorProto:
    """Numbers in the type and shape of the tensor that they replace."""
    if old is None:
        return numpy_helper.from_array(value, name)
    kind = helper.tensor_dtype_to_np_dtype(old.data_type)
    return numpy_helper.from_array(value.reshape(tuple(old.dims) or value.shape).astype(kind), name)


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _refill(field: Any, messages: Iterable[Any]) -> None:
    messages = list(messages)
    del field[:]
    field.extend(messages)


def _attributes(node: NodeProto, pair: Factorized, number: int) -> list[onnx.AttributeProto]:
    """Attributes of the first (0) or second (1) of the two nodes that stand for `node`."""
    if node.op_type == "MatMul":
        return []
    if node.op_type == "Gemm":
        return [helper.make_attribute("transB", 1)]
    conv = (pair.first, pair.second)[number]
    assert isinstance(conv, nn.Conv2d)
    made = {
        "kernel_shape": list(conv.kernel_size),
        "strides": list(conv.stride),
        "dilations": list(conv.dilation),
        "group": conv.groups,
    }
    mode = attributes(node).get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        # It works axis by axis, and an axis with kernel 1 and stride 1 gets none: right for both nodes.
        return [helper.make_attribute(key, value) for key, value in {**made, "auto_pad": mode}.items()]
    made["pads"] = _pads(node, pair)[number]
    return [helper.make_attribute(key, value) for key, value in made.items()]


def _pads(node: NodeProto, pair: Factorized) -> tuple[list[int], list[int]]:
    """The user's padding, for each axis at the node whose kernel needs it.

    Zeros that the first node would only copy (kernel 1, stride 1 along that axis; it has no bias) can wait
    for the second, which makes the first cheaper.
    """
    wanted = explicit_pads(node)
    first, second = [0, 0, 0, 0], [0, 0, 0, 0]
    conv = pair.first
    assert isinstance(conv, nn.Conv2d)
    for axis in (0, 1):
        waits = conv.kernel_size[axis] == 1 and conv.stride[axis] == 1 and conv.bias is None
        target = second if waits else first
        target[axis], target[axis + 2] = wanted[axis], wanted[axis + 2]
    return first, second
