"""ONNX files whose graphs and attributes make no sense."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.formats.nets import conv, conv_weights, graph
from tests.hostile.corpus import READY
from tests.hostile.corpus.onnx_case import MALFORMED, UNKNOWN, case, changed, plain


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
