"""ONNX files that are damaged, incomplete or outside what we read: refused, and the culprit named."""

import os
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from basisconv.errors import MethodError
from basisconv.formats import onnx_reader
from tests.formats.nets import conv, conv_weights, graph, small_onnx


def refusal(model: ModelProto | bytes) -> MethodError:
    data = model.SerializeToString() if isinstance(model, ModelProto) else model
    with pytest.raises(MethodError) as refused:
        onnx_reader.load(data)
    return refused.value


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_malformed(kept: float) -> None:
    data = small_onnx()
    assert refusal(data[: int(kept * len(data))]).code == "malformed_model"


def test_random_bytes_are_malformed() -> None:
    assert refusal(os.urandom(5000)).code == "malformed_model"


def test_external_data_is_refused_and_the_tensor_named(tmp_path: Any) -> None:
    model = graph([conv()], conv_weights())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    refused = refusal(model)
    assert refused.code == "external_data_not_allowed"
    assert "'conv.w'" in refused.detail
    assert "../../etc/passwd" in refused.detail


def test_external_data_in_a_constant_node_is_refused() -> None:
    hidden = TensorProto(name="hidden", data_type=1, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="w.bin")
    constant = helper.make_node("Constant", [], ["conv.w"], "const", value=hidden)
    weights = {"conv.b": conv_weights()["conv.b"]}
    assert refusal(graph([constant, conv()], weights)).code == "external_data_not_allowed"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_name_their_layer(value: float) -> None:
    weights = conv_weights()
    weights["conv.w"][1, 2, 0, 0] = value
    refused = refusal(graph([conv()], weights))
    assert (refused.code, refused.layer) == ("malformed_model", "conv")
    assert "1 numbers of 108" in refused.detail


def test_an_infinite_bound_of_a_clip_is_no_damage() -> None:
    weights: dict[str, Any] = conv_weights() | {"low": np.float32(0), "high": np.float32(np.inf)}
    nodes = [conv(target="c"), helper.make_node("Clip", ["c", "low", "high"], ["y"], "clip")]
    assert onnx_reader.load(graph(nodes, weights).SerializeToString()).layers


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (
            helper.make_node("FusedConv", ["x"], ["y"], "fused", domain="com.microsoft"),
            "com.microsoft::FusedConv",
        ),
        (helper.make_node("NoSuchOp", ["x"], ["y"], "odd"), "NoSuchOp"),
        (helper.make_node("RandomNormalLike", ["x"], ["y"], "noise"), "RandomNormalLike"),
        (helper.make_node("If", ["x"], ["y"], "branch"), "If"),
    ],
)
def test_an_operator_that_we_cannot_read_is_named_with_its_node(node: Any, name: str) -> None:
    refused = refusal(graph([node], {}, domains=["com.microsoft"]))
    assert (refused.code, refused.layer) == ("unsupported_operator", node.name)
    assert name in refused.detail


def test_a_batch_norm_in_training_mode_is_refused() -> None:
    weights = {key: np.ones(3, np.float32) for key in "sbmv"}
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y", "m2", "v2"], "bn", training_mode=1)
    refused = refusal(graph([node], weights))
    assert (refused.code, refused.layer) == ("unsupported_operator", "bn")
    assert "training mode" in refused.detail


def test_a_missing_weight_is_named_with_its_node() -> None:
    weights = conv_weights()
    del weights["conv.w"]
    refused = refusal(graph([conv()], weights))
    assert (refused.code, refused.layer) == ("malformed_model", "conv")
    assert "'conv.w'" in refused.detail


def test_a_tensor_that_claims_more_than_it_holds_is_refused() -> None:
    model = graph([conv()], conv_weights())
    model.graph.initializer[0].dims[0] = 1 << 28
    assert refusal(model).code == "malformed_model"


@pytest.mark.parametrize("dims", [[0, 3, 3, 3], [-4, 3, 3, 3]])
def test_impossible_weight_shapes_are_refused(dims: list[int]) -> None:
    model = graph([conv()], conv_weights())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    assert refusal(model).code == "malformed_model"


@pytest.mark.parametrize("shape", [("n", 3, 0, 12), ("n", 3, 12, 1 << 30), ("n", 3, 12), ("n", "c", 12, 12)])
def test_inputs_that_are_no_images_are_refused(shape: tuple[Any, ...]) -> None:
    assert refusal(graph([conv()], conv_weights(), shape=shape)).code in (
        "malformed_model",
        "validation_failed",
    )


def test_two_inputs_are_refused_with_their_names() -> None:
    model = graph([helper.make_node("Add", ["x", "z"], ["y"], "add")], {})
    model.graph.input.append(helper.make_tensor_value_info("z", 1, ["n", 3, 12, 12]))
    assert "'x', 'z'" in refusal(model).detail


def test_an_integer_input_is_refused() -> None:
    model = graph([conv()], conv_weights())
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert "UINT8" in refusal(model).detail


def test_a_layer_that_does_not_fit_its_input_is_named() -> None:
    refused = refusal(graph([conv()], conv_weights(inputs=5)))
    assert (refused.code, refused.layer) == ("malformed_model", "conv")
