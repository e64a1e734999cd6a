"""ONNX files that are damaged, lie, or reach outside themselves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.formats.nets import conv, conv_weights, graph, small_onnx
from tests.hostile.corpus import READY, Traps, add
from tests.hostile.corpus.payloads import pickled

MALFORMED = "malformed_model"
OUTSIDE = "external_data_not_allowed"
UNKNOWN = "unsupported_operator"


def case(name: str, model: Callable[[], ModelProto | bytes], codes: str, **more: Any) -> None:
    def make(_: Traps) -> bytes:
        made = model()
        return made if isinstance(made, bytes) else made.SerializeToString()

    add("onnx", name, make, codes, **more)


def plain() -> ModelProto:
    return graph([conv()], conv_weights())


def changed(change: Callable[[ModelProto], object]) -> Callable[[], ModelProto]:
    """One convolution, after `change` has had its way with it."""

    def make() -> ModelProto:
        model = plain()
        change(model)
        return model

    return make


# The outside world.


def external(tensor: TensorProto, location: str, **entries: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=value)


PLACES = {
    "beside it": "weights.bin",
    "above": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "home": "~/.ssh/id_rsa",
    "process memory": "/proc/self/environ",
    "a device that never ends": "/dev/zero",
    "a web address": "http://127.0.0.1/weights",
    "a Windows share": "\\\\127.0.0.1\\share",
    "a name with NUL": "a\0b",
    "nowhere": "",
}
for _name, _place in PLACES.items():
    case(
        f"external data: {_name}",
        changed(lambda m, place=_place: external(m.graph.initializer[0], place)),
        OUTSIDE,
    )


def external_constant() -> ModelProto:
    tensor = TensorProto(name="hidden", data_type=1, dims=[4, 3, 3, 3])
    external(tensor, "w.bin", offset="-1", length=str(1 << 62))
    constant = helper.make_node("Constant", [], ["conv.w"], "const", value=tensor)
    return graph([constant, conv()], {"conv.b": conv_weights()["conv.b"]})


def external_in_function() -> ModelProto:
    tensor = TensorProto(name="t", data_type=1, dims=[1])
    external(tensor, "/etc/passwd")
    body = [
        helper.make_node("Constant", [], ["c"], value=tensor),
        helper.make_node("Add", ["a", "c"], ["b"]),
    ]
    function = helper.make_function("here", "Hidden", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model = graph([helper.make_node("Hidden", ["x"], ["y"], "h", domain="here")], {}, domains=["here"])
    model.functions.append(function)
    return model


def external_in_training() -> ModelProto:
    model = plain()
    tensor = model.training_info.add().algorithm.initializer.add(name="t", data_type=1, dims=[1])
    external(tensor, "/etc/passwd")
    return model


def external_sparse() -> ModelProto:
    model = plain()
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(TensorProto(name="s", data_type=1, dims=[1]))
    external(sparse.values, "/etc/passwd")
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64)))
    return model


case("external data: in a Constant", external_constant, OUTSIDE)
case("external data: in a function", external_in_function, OUTSIDE)
case("external data: in the training part", external_in_training, OUTSIDE)
case("external data: in a sparse tensor", external_sparse, OUTSIDE)

# Bytes that are not what they say.


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def nested(tag: int, depth: int) -> bytes:
    """A message in a message in a message …"""
    inner = b""
    for _ in range(depth):
        inner = bytes([tag]) + varint(len(inner)) + inner
    return inner


def group_nested(depth: int) -> bytes:
    """Groups of an unknown field, opened and never closed: they need no lengths."""
    return b"\x08\x08\xfb\x01" + b"\xfb\x01" * depth


case("cut in the middle", lambda: small_onnx()[: len(small_onnx()) // 2], MALFORMED)
case("cut before its last byte", lambda: small_onnx()[:-1], MALFORMED)
case(
    "a length of 2^63 in front",
    lambda: b"\x08\x08\x3a" + varint((1 << 63) - 1),
    "unsupported_format malformed_model",
)
case("a length of 2 GB in front", lambda: b"\x08\x08\x3a" + varint((1 << 31) - 1) + b"x", MALFORMED)
case(
    "noise behind a true beginning",
    lambda: b"\x08\x08\x12\x07pytorch" + np.random.default_rng(0).bytes(5000),
    "malformed_model unsupported_format",
)
case(
    "unknown groups nested a million deep",
    lambda: group_nested(1_000_000),
    "malformed_model unsupported_format",
)
case("graphs nested 5,000 deep", lambda: b"\x08\x08" + nested(0x3A, 5000), MALFORMED)
case("a graph and nothing in it", lambda: ModelProto(ir_version=8), MALFORMED)
case(
    "a pickle behind the network",
    lambda: small_onnx() + b"\xfa\x3f" + varint(4) + b"\x80\x04K\x01",
    f"{READY} {MALFORMED}",
)
case("the same graph twice, which protobuf merges", lambda: small_onnx() + small_onnx(), MALFORMED)


def deep_types(depth: int) -> ModelProto:
    """Sequences of sequences of sequences … as the network's input."""
    model = plain()
    kind = model.graph.input[0].type
    kind.Clear()
    for _ in range(depth):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = 1
    return model


def deep_branches(depth: int) -> ModelProto:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])],
        "leaf",
        [],
        [helper.make_tensor_value_info("out", 1, None)],
    )
    for number in range(depth):
        branch = helper.make_node(
            "If", ["cond"], ["out"], f"if{number}", then_branch=inner, else_branch=inner
        )
        inner = helper.make_graph([branch], "b", [], [helper.make_tensor_value_info("out", 1, None)])
    top = helper.make_node("If", ["cond"], ["y"], "top", then_branch=inner, else_branch=inner)
    return graph([top], {"cond": np.array(True)})


case("sequences nested 40 deep as its input", lambda: deep_types(40), MALFORMED)
case("branches nested 12 deep, 8,000 graphs", lambda: deep_branches(12), UNKNOWN)


def tensor_says(**fields: Any) -> Callable[[], ModelProto]:
    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            tensor.ClearField(name)
            if isinstance(value, list):
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return changed(change)


case("weights that claim 2^28 times their bytes", tensor_says(dims=[1 << 28, 3, 3, 3]), MALFORMED)
case("weights of 2^62 by 2^62", tensor_says(dims=[1 << 62, 1 << 62]), MALFORMED)
case("weights whose product wraps around to 108", tensor_says(dims=[1 << 32, 1 << 32, 108]), MALFORMED)
case("weights of negative size", tensor_says(dims=[-4, -3, 3, 3]), MALFORMED)
case("weights of no size", tensor_says(dims=[0, 3, 3, 3], raw_data=b""), MALFORMED)
case("weights of 200,000 axes", tensor_says(dims=[1] * 200_000, raw_data=bytes(4)), MALFORMED)
case("weights of 70 axes", tensor_says(dims=[1] * 70, raw_data=bytes(4)), MALFORMED)
case("weights of an unknown type", tensor_says(data_type=99), MALFORMED)
case("weights of no type", tensor_says(data_type=0), MALFORMED)
case(
    "weights that are texts",
    tensor_says(data_type=8, raw_data=b"", string_data=[b"a"] * 108),
    f"{MALFORMED} {UNKNOWN}",
)
case("weights of four bits", tensor_says(data_type=22, raw_data=bytes(54)), f"{MALFORMED} {UNKNOWN}")
case("weights of one byte less than they need", tensor_says(raw_data=bytes(431)), MALFORMED)
case("weights stored twice, in two fields", tensor_says(float_data=[1.0] * 108), f"{MALFORMED} {READY}")
case("weights in complex numbers", tensor_says(data_type=14, raw_data=bytes(864)), f"{MALFORMED} {UNKNOWN}")


def weight_is(value: float, count: int = 1) -> Callable[[], ModelProto]:
    def make() -> ModelProto:
        weights = conv_weights()
        weights["conv.w"].reshape(-1)[:count] = value
        return graph([conv()], weights)

    return make


for _what, _value in {"NaN": np.nan, "infinite": np.inf, "minus infinite": -np.inf}.items():
    case(f"one weight that is {_what}", weight_is(_value), MALFORMED)
case("weights at float32's edge, whose outputs overflow", weight_is(3e38, 108), MALFORMED)


def half_infinite() -> ModelProto:
    model = plain()
    values = np.full((4, 3, 3, 3), np.inf, np.float16)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "conv.w"))
    return model


case("infinite weights in half precision", half_infinite, MALFORMED)


def sparse_of(dims: list[int], indices: list[int]) -> Callable[[], ModelProto]:
    def make() -> ModelProto:
        model = graph([conv()], {"conv.b": conv_weights()["conv.b"]})
        sparse = model.graph.sparse_initializer.add(dims=dims)
        sparse.values.CopyFrom(numpy_helper.from_array(np.ones(len(indices), np.float32), "conv.w"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64)))
        return model

    return make


case(
    "sparse weights of 2^40 places",
    sparse_of([1 << 20, 1 << 20], [0]),
    f"{MALFORMED} {UNKNOWN} resource_limit",
)
case("sparse weights with a place outside", sparse_of([4, 3, 3, 3], [10**9]), f"{MALFORMED} {UNKNOWN}")
case("sparse weights with a negative place", sparse_of([4, 3, 3, 3], [-(1 << 40)]), f"{MALFORMED} {UNKNOWN}")

# Graphs that make no sense.


def without_weights() -> ModelProto:
    return graph([conv()], {"conv.b": conv_weights()["conv.b"]})


def cycle() -> ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "one"), helper.make_node("Relu", ["a"], ["b"], "two")]
    return graph([*nodes, helper.make_node("Relu", ["b"], ["y"], "out")], {})


def upside_down() -> ModelProto:
    return graph([helper.make_node("Relu", ["c"], ["y"], "relu"), conv(target="c")], conv_weights())


def written_twice() -> ModelProto:
    return graph([conv(target="y"), helper.make_node("Relu", ["x"], ["y"], "relu")], conv_weights())


def reads_itself() -> ModelProto:
    return graph([helper.make_node("Add", ["y", "x"], ["y"], "self")], {})


case("a weight that is missing", without_weights, MALFORMED)
case("a cycle", cycle, MALFORMED)
case("a node that reads itself", reads_itself, MALFORMED)
case("nodes in the wrong order", upside_down, MALFORMED)
case("a value written twice", written_twice, MALFORMED)
case("no output", changed(lambda m: m.graph.ClearField("output")), MALFORMED)
case("an output that nothing computes", changed(lambda m: setattr(m.graph.output[0], "name", "z")), MALFORMED)
case("no input", changed(lambda m: m.graph.ClearField("input")), MALFORMED)
case("the input as its output", lambda: graph([conv(target="c")], conv_weights(), output="x"), MALFORMED)
case("nodes without outputs", changed(lambda m: m.graph.node[0].ClearField("output")), MALFORMED)
case("a convolution without inputs", changed(lambda m: m.graph.node[0].ClearField("input")), MALFORMED)
case(
    "an Identity without inputs", lambda: graph([helper.make_node("Identity", [], ["y"], "i")], {}), MALFORMED
)
case(
    "a Pad without pads",
    lambda: graph([helper.make_node("Pad", ["x", "", "", "a"], ["y"], "p")], {"a": np.array([2, 3])}),
    MALFORMED,
)
case("two networks in one: 100,000 inputs", lambda: many_inputs(100_000), MALFORMED)
case("an initialiser that is also an input of another shape", lambda: shadowed(), f"{MALFORMED} {READY}")
case("a chain of 20,000 nodes", lambda: chain(20_000), f"{READY} {MALFORMED} resource_limit")


def many_inputs(count: int) -> ModelProto:
    model = plain()
    for number in range(count):
        model.graph.input.add(name=f"i{number}").type.tensor_type.elem_type = 1
    return model


def shadowed() -> ModelProto:
    model = plain()
    model.graph.input.append(helper.make_tensor_value_info("conv.w", 1, [1 << 40, 3, 3, 3]))
    return model


def chain(length: int) -> ModelProto:
    nodes = [conv(target="c0")]
    nodes += [helper.make_node("Relu", [f"c{i}"], [f"c{i + 1}"], f"relu{i}") for i in range(length)]
    return graph([*nodes, helper.make_node("Relu", [f"c{length}"], ["y"], "last")], conv_weights())


def input_is(*shape: int | str) -> Callable[[], ModelProto]:
    return lambda: graph([conv()], conv_weights(), shape=shape)


case("an image of 2^62 pixels a side", input_is("n", 3, 1 << 62, 1 << 62), MALFORMED)
case("an image of no pixels", input_is("n", 3, 0, 12), MALFORMED)
case("an image of negative size", input_is("n", 3, -5, -5), f"{MALFORMED} {READY}")
case("an image of one axis", input_is("n"), MALFORMED)
case("a batch of 2^40 images", input_is(1 << 40, 3, 12, 12), MALFORMED)
case("a batch of 8,000 images", input_is(8_000, 3, 512, 512), f"{MALFORMED} resource_limit")
case("an image of 8,000 channels", input_is("n", 8_000, 12, 12), MALFORMED)
case("channels that the file leaves open", input_is("n", "c", "h", "w"), "validation_failed")


# Attributes.


def conv_with(**attributes: Any) -> Callable[[], ModelProto]:
    return lambda: graph([conv(**attributes)], conv_weights())


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "strides of 0": {"strides": [0, 0]},
    "negative strides": {"strides": [-1, -1]},
    "strides of 2^62": {"strides": [1 << 62, 1 << 62]},
    "dilations of 2^62": {"dilations": [1 << 62, 1 << 62]},
    "dilations of 0": {"dilations": [0, 0]},
    "pads of 2^62": {"pads": [1 << 62] * 4},
    "uneven pads of 10^5": {"pads": [100_000, 100_000, 100_001, 100_001]},
    "pads of -10^9": {"pads": [-(10**9)] * 4},
    "100,000 pads": {"pads": [1] * 100_000},
    "a kernel that its weights have not": {"kernel_shape": [1000, 1000]},
    "group 0": {"group": 0},
    "group -1": {"group": -1},
    "group 2^62": {"group": 1 << 62},
    "an unknown automatic padding": {"auto_pad": "SAME_SIDEWAYS"},
    "an unknown attribute": {"cmd": "touch /tmp/it-ran"},
    "an attribute of the wrong type": {"strides": "fast"},
    "an attribute of ten megabytes": {"note": "x" * 10_000_000},
    "a graph for an attribute": {"body": helper.make_graph([], "g", [], [])},
}
for _name, _attributes in ATTRIBUTES.items():
    # A stride over everything is honest: it leaves one pixel.
    _codes = READY if _name == "strides of 2^62" else f"{MALFORMED} {UNKNOWN} resource_limit"
    case(f"a convolution with {_name}", conv_with(**_attributes), _codes)


def twice_said() -> ModelProto:
    model = graph([conv(strides=[1, 1])], conv_weights())
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [7, 7]))
    return model


case("an attribute given twice", twice_said, f"{MALFORMED} {READY} import_mismatch")


def norm_with(**attributes: Any) -> Callable[[], ModelProto]:
    def make() -> ModelProto:
        weights: dict[str, Any] = {name: np.full(3, -1.0, np.float32) for name in "sbmv"}
        node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["n"], "bn", **attributes)
        return graph([node, conv(source="n")], weights | conv_weights())

    return make


case("a batch norm of negative variance", norm_with(), f"{MALFORMED} import_mismatch")
case("a batch norm in training mode", norm_with(training_mode=1), f"{MALFORMED} {UNKNOWN}")
case("a batch norm whose epsilon is NaN", norm_with(epsilon=float("nan")), f"{MALFORMED} import_mismatch")


# Operators.


def node_of(kind: str, inputs: int = 1, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(kind, ["x"] * inputs, ["c"], "odd", domain=domain, **attributes)


OPERATORS: dict[str, NodeProto] = {
    "of an unknown domain": node_of("Run", domain="evil.example"),
    "of Microsoft's domain": node_of("FusedConv", 2, domain="com.microsoft"),
    "of training's domain": node_of("Gradient", domain="ai.onnx.preview.training", xs=["x"], y="x"),
    "of machine learning's domain": node_of("Scaler", domain="ai.onnx.ml"),
    "that runs Python": node_of("PyOp", domain="pyopmulti_2", module="os", class_name="system"),
    "that ATen evaluates": node_of("ATen", domain="org.pytorch.aten", operator="system"),
    "that does not exist": node_of("LaunchMissiles"),
    "with a name of a megabyte": node_of("X" * 1_000_000),
    "with a name of control characters": node_of("Conv\x00\x1b[2J"),
    "that makes random numbers": node_of("RandomNormalLike"),
    "that draws lots": node_of("Bernoulli"),
    "for texts": node_of("StringNormalizer"),
    "for optional values": node_of("Optional"),
    "for sequences": node_of("SequenceConstruct"),
    "for deformable convolutions": node_of("DeformConv", 3),
}
for _name, _node in OPERATORS.items():
    case(
        f"an operator {_name}",
        lambda node=_node: graph(
            [node, conv(source="c")], conv_weights(), domains=sorted({node.domain} - {""})
        ),
        f"{UNKNOWN} {MALFORMED}",
    )


def own_conv(domain: str) -> ModelProto:
    """A function of the file's own that takes the place of a standard operator."""
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function(
        domain, "Conv", ["a", "w", "c"], ["b"], body, [helper.make_opsetid("", 17)]
    )
    model = plain()
    model.functions.append(function)
    return model


case(
    "its own function in the place of Conv",
    lambda: own_conv(""),
    f"{MALFORMED} {UNKNOWN} import_mismatch {READY}",
)
case(
    "its own function in the place of ai.onnx's Conv",
    lambda: own_conv("ai.onnx"),
    f"{MALFORMED} {UNKNOWN} import_mismatch {READY}",
)


def opsets(*versions: tuple[str, int]) -> Callable[[], ModelProto]:
    def change(model: ModelProto) -> None:
        del model.opset_import[:]
        for domain, version in versions:
            model.opset_import.append(helper.make_opsetid(domain, version))

    return changed(change)


for _name, _versions in {
    "no opset": [],
    "opset 0": [("", 0)],
    "opset -1": [("", -1)],
    "opset 2^62": [("", 1 << 62)],
    "two opsets": [("", 17), ("", 7)],
    "100,000 opsets": [(f"d{number}", 1) for number in range(100_000)],
}.items():
    case(_name, opsets(*_versions), f"{MALFORMED} {UNKNOWN} {READY}")
case("a version of ONNX to come", changed(lambda m: setattr(m, "ir_version", 1 << 40)), MALFORMED)
case("a version of ONNX below zero", changed(lambda m: setattr(m, "ir_version", -1)), MALFORMED)


def described(**texts: str) -> Callable[[], ModelProto]:
    def change(model: ModelProto) -> None:
        for name, text in texts.items():
            setattr(model, name, text)
        for key in ("<script>alert(1)</script>", "\u202eevil", "x" * 10_000, "../../etc"):
            model.metadata_props.add(key=key, value=key)

    return changed(change)


HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"
case(
    "HTML in everything it says of itself",
    described(producer_name=HTML, doc_string=HTML, domain=HTML),
    READY,
)


def named(name: str) -> Callable[[], ModelProto]:
    return lambda: graph([conv(name)], conv_weights(name))


NODE_NAMES = {
    "HTML": HTML,
    "ten thousand letters": "n" * 10_000,
    "a path": "../../../etc/passwd",
    "NUL and control characters": "a\0b\x1b[2J\r\n",
    "text that turns its direction": "\u202eedoc\u2066x",
    "format marks": "%s%n{0.__class__}{{7*7}}",
    "Python": "__class__.__init__.__globals__",
    "torch's own words": "forward.graph._modules",
    "lone accents": "e\u0301" * 500,
}
for _name, _text in NODE_NAMES.items():
    case(f"a layer named by {_name}", named(_text), f"{READY} {MALFORMED}")


def with_pickle_for_text(traps: Traps) -> bytes:
    """A pickle in the metadata, for readers that unpickle what they find there."""
    model = plain()
    model.metadata_props.add(key="config", value=pickled(traps, 0).decode("latin-1"))
    return model.SerializeToString()


add("onnx", "a pickle in its metadata", with_pickle_for_text, READY)
assert onnx.__version__
