"""ONNX files that are damaged, lie about their bytes, or reach outside themselves."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.formats.nets import conv, conv_weights, graph, small_onnx
from tests.hostile.corpus import READY
from tests.hostile.corpus.onnx_case import MALFORMED, OUTSIDE, UNKNOWN, case, changed, plain

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
