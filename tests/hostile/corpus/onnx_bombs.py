"""Small ONNX files that ask for more time or memory than anybody has."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.formats.nets import conv, conv_weights, graph
from tests.hostile.corpus import Traps, add

BOMB = "resource_limit malformed_model"


def case(name: str, model: Callable[[], ModelProto], codes: str = BOMB, **more: Any) -> None:
    def make(_: Traps) -> bytes:
        return model().SerializeToString()

    add("onnx bombs", name, make, codes, **more)


def behind(
    nodes: Sequence[NodeProto], values: dict[str, Any], result: str = "bomb"
) -> Callable[[], ModelProto]:
    """A convolution, to whose result what the bomb computes is added."""

    def make() -> ModelProto:
        scalar = helper.make_node("ReduceMax", [result], ["least"], "shrink", keepdims=0)
        add_up = helper.make_node("Add", ["c", "least"], ["y"], "add")
        return graph([*nodes, scalar, conv(target="c"), add_up], conv_weights() | values)

    return make


def one(
    kind: str, inputs: Sequence[str], values: dict[str, Any], **attributes: Any
) -> Callable[[], ModelProto]:
    return behind([helper.make_node(kind, list(inputs), ["bomb"], kind.lower(), **attributes)], values)


def sizes(*values: int) -> Any:
    return np.array(values, np.int64)


ONE = {"one": np.ones((1, 1, 1, 1), np.float32)}
BIG = sizes(1 << 10, 1 << 10, 1 << 10, 1 << 6)  # 2^36 numbers, 256 GB
HUGE = sizes(1 << 31, 1 << 31)  # 2^62

# What a runtime that folds constants computes while it opens the file.
case("ConstantOfShape of 2^36", one("ConstantOfShape", ["s"], {"s": BIG}))
case("ConstantOfShape of 2^62", one("ConstantOfShape", ["s"], {"s": HUGE}))
case("ConstantOfShape of negative size", one("ConstantOfShape", ["s"], {"s": sizes(-5, -5)}))
case("Expand to 2^36", one("Expand", ["one", "s"], ONE | {"s": BIG}))
case("Tile by 2^36", one("Tile", ["one", "s"], ONE | {"s": BIG}))
case(
    "Range to 10^12",
    one(
        "Range",
        ["a", "b", "d"],
        {"a": np.array(0.0, np.float32), "b": np.array(1e12, np.float32), "d": np.array(1.0, np.float32)},
    ),
)
case(
    "Range in steps of zero",
    one(
        "Range",
        ["a", "b", "d"],
        {"a": np.array(0, np.int64), "b": np.array(5, np.int64), "d": np.array(0, np.int64)},
    ),
    "resource_limit malformed_model unsupported_operator",
)
case("Pad by 10^9", one("Pad", ["x", "p"], {"p": sizes(0, 0, 10**9, 10**9, 0, 0, 10**9, 10**9)}))
case(
    "EyeLike of 2^20 by 2^20",
    behind(
        [
            helper.make_node("ConstantOfShape", ["s"], ["z"], "z"),
            helper.make_node("EyeLike", ["z"], ["bomb"], "eye"),
        ],
        {"s": sizes(1 << 20, 1 << 20)},
    ),
)
case(
    "OneHot of depth 10^11",
    one(
        "OneHot", ["i", "d", "v"], {"i": sizes(1), "d": sizes(10**11), "v": np.array([0.0, 1.0], np.float32)}
    ),
)
case(
    "Resize to a million a side",
    one("Resize", ["x", "", "", "s"], {"s": sizes(1, 3, 1 << 20, 1 << 20)}, mode="nearest"),
)
case(
    "Resize by a factor of 10^5",
    one("Resize", ["x", "", "f"], {"f": np.array([1, 1, 1e5, 1e5], np.float32)}, mode="nearest"),
)
case("Upsample by a factor of 10^30", lambda: upsample())
case("an outer product of 2^20 by 2^20", lambda: outer())
case("an Einsum of 2^40", lambda: einsum())
case("Gather that repeats a row 10^8 times", lambda: gather())
case("Concat doubling 40 times", lambda: doubling(40))
case("Concat doubling 40 times, where nobody reads it", lambda: doubling(40, read=False))


def upsample() -> ModelProto:
    node = helper.make_node("Upsample", ["x", "f"], ["bomb"], "up", mode="nearest")
    return graph(
        [node, conv(source="bomb")], conv_weights() | {"f": np.array([1, 1, 1e30, 1e30], np.float32)}, opset=9
    )


def outer() -> ModelProto:
    column = np.ones((1 << 20, 1), np.float32)
    return behind(
        [helper.make_node("Mul", ["col", "row"], ["bomb"], "mul")], {"col": column, "row": column.T}
    )()


def einsum() -> ModelProto:
    node = helper.make_node("Einsum", ["v"] * 10, ["bomb"], "e", equation="a,b,c,d,e,f,g,h,i,j->abcdefghij")
    return behind([node], {"v": np.ones(16, np.float32)})()


def gather() -> ModelProto:
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["s"], ["i"], "i", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])
        ),
        helper.make_node("Gather", ["m", "i"], ["bomb"], "gather"),
    ]
    return behind(nodes, {"s": sizes(10**8), "m": np.ones((1, 1000), np.float32)})()


def doubling(times: int, read: bool = True) -> ModelProto:
    nodes = [
        helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], f"double{i}", axis=0)
        for i in range(times)
    ]
    model = behind(nodes, {"d0": np.ones(64, np.float32)}, result=f"d{times}" if read else "d0")
    return model()


# Layers that would run for hours.


def wide(outputs: int, kernel: int, side: int, **attributes: Any) -> Callable[[], ModelProto]:
    def make() -> ModelProto:
        weights = {
            "conv.w": np.zeros((outputs, 3, kernel, kernel), np.float32),
            "conv.b": np.zeros(outputs, np.float32),
        }
        return graph([conv(pads=[kernel // 2] * 4, **attributes)], weights, shape=("n", 3, side, side))

    return make


# 3 × 7 × 7 × 128 × 8000 × 8000
case("a convolution of 10^12 multiplications", wide(128, 7, 8000))
case("a convolution of 4·10^11 in 400 layers", lambda: stacked(400))
case("a linear layer over every pixel of a large image", lambda: per_pixel())
case("attention between all pixels of a large image", lambda: attention())
case("a transposed convolution to a million a side", lambda: transposed())
case("a depthwise convolution of one weight on a batch of 8,000", lambda: batch_bomb())


def stacked(layers: int) -> ModelProto:
    nodes, weights, x = [], {"w": np.zeros((64, 64, 7, 7), np.float32), "b": np.zeros(64, np.float32)}, "x"
    weights |= conv_weights("stem", outputs=64, kernel=7)
    nodes.append(conv("stem", target="c", pads=[3] * 4))
    x = "c"
    for number in range(layers):
        last = number == layers - 1
        nodes.append(
            helper.make_node(
                "Conv", [x, "w", "b"], ["y" if last else f"c{number}"], f"conv{number}", pads=[3] * 4
            )
        )
        x = f"c{number}"
    return graph(nodes, weights, shape=("n", 3, 512, 512))


def per_pixel() -> ModelProto:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flat"),
        helper.make_node("Transpose", ["f"], ["t"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["f2", "w"], ["y"], "dense"),
    ]
    nodes.insert(1, helper.make_node("Transpose", ["x"], ["f2"], "last", perm=[0, 2, 3, 1]))
    return graph(nodes, {"w": np.zeros((3, 100_000), np.float32)}, shape=("n", 3, 4096, 4096))


def attention() -> ModelProto:
    nodes = [
        conv(target="c"),
        helper.make_node("Reshape", ["c", "s"], ["r"], "flat"),
        helper.make_node("Transpose", ["r"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "r"], ["a"], "scores"),
        helper.make_node("Softmax", ["a"], ["y"], "softmax"),
    ]
    return graph(nodes, conv_weights() | {"s": sizes(0, 4, -1)}, shape=("n", 3, 1024, 1024))


def transposed() -> ModelProto:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[100_000, 100_000])
    return graph([node], {"w": np.zeros((3, 4, 3, 3), np.float32)})


def batch_bomb() -> ModelProto:
    return graph([conv()], conv_weights(), shape=(8_000, 3, 224, 224))


# Control flow and functions.


def loop(trips: int) -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["cond"], ["again"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    node = helper.make_node("Loop", ["trips", "yes", "x"], ["looped"], "loop", body=body)
    return graph(
        [node, conv(source="looped")], conv_weights() | {"trips": np.array(trips), "yes": np.array(True)}
    )


FLOW = "unsupported_operator"
case("a Loop of 2^62 trips", lambda: loop(1 << 62), FLOW)
case("a Loop in a function", lambda: loop_in_function(), FLOW)
case(
    "functions that double 60 times",
    lambda: functions(60),
    "resource_limit malformed_model unsupported_operator",
)
case(
    "functions that double 18 times",
    lambda: functions(18),
    "resource_limit malformed_model unsupported_operator",
)
case("a function that calls itself", lambda: recursive(), "malformed_model unsupported_operator")
case("two functions that call each other", lambda: mutual(), "malformed_model unsupported_operator")
case(
    "a function of 100,000 nodes called 100 times",
    lambda: called_often(),
    "resource_limit malformed_model unsupported_operator",
)


def function(name: str, nodes: Sequence[NodeProto]) -> Any:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    return helper.make_function("here", name, ["a"], ["b"], list(nodes), imports)


def call(name: str, source: str, target: str) -> NodeProto:
    return helper.make_node(name, [source], [target], domain="here")


def calling(functions: Sequence[Any], first: str) -> ModelProto:
    model = graph([conv(target="c"), call(first, "c", "y")], conv_weights(), domains=["here"])
    model.functions.extend(functions)
    return model


def functions(depth: int) -> ModelProto:
    leaf = [function("f0", [helper.make_node("Relu", ["a"], ["b"])])]
    rest = [
        function(f"f{i}", [call(f"f{i - 1}", "a", "m"), call(f"f{i - 1}", "m", "b")])
        for i in range(1, depth + 1)
    ]
    return calling([*leaf, *rest], f"f{depth}")


def recursive() -> ModelProto:
    return calling([function("f", [call("f", "a", "b")])], "f")


def mutual() -> ModelProto:
    return calling([function("f", [call("g", "a", "b")]), function("g", [call("f", "a", "b")])], "f")


def called_often() -> ModelProto:
    chain = [helper.make_node("Relu", ["a"], ["v0"])]
    chain += [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(99_998)]
    long = function("long", [*chain, helper.make_node("Relu", ["v99998"], ["b"])])
    calls = [call("long", f"c{i}", f"c{i + 1}") for i in range(100)]
    model = graph(
        [conv(target="c0"), *calls, helper.make_node("Relu", ["c100"], ["y"], "last")],
        conv_weights(),
        domains=["here"],
    )
    model.functions.append(long)
    return model


def loop_in_function() -> ModelProto:
    inner = loop(1 << 62).graph.node[0]
    body = [
        helper.make_node("Constant", [], ["trips"], value_int=1 << 62),
        helper.make_node(
            "Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])
        ),
    ]
    looped = NodeProto()
    looped.CopyFrom(inner)
    looped.input[2], looped.output[0] = "a", "b"
    return calling([function("f", [*body, looped])], "f")
