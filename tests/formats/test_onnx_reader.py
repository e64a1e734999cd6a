"""ONNX files become modules of standard layers that answer as ONNX Runtime does."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import nn

from basisconv.errors import MethodError
from basisconv.formats import onnx_reader
from basisconv.formats.compare import TOLERANCE, check_import
from tests.formats.nets import conv, conv_weights, graph, images, onnx_of, small, small_onnx


def load(model: ModelProto, **options: Any) -> onnx_reader.Network:
    return onnx_reader.load(model.SerializeToString(), **options)


def kinds(network: onnx_reader.Network) -> list[str]:
    return [type(module).__name__ for module in network.module.modules()]


def test_layers_with_weights_become_real_submodules() -> None:
    network = onnx_reader.load(small_onnx())
    assert kinds(network).count("Conv2d") == 4
    assert kinds(network).count("Linear") == 2
    assert kinds(network).count("BatchNorm2d") == 2
    assert not network.module.training
    assert list(network.layers) == [
        "/stem/Conv",
        "/block/block.0/Conv",
        "/deep/Conv",
        "/down/Conv",
        "/fc1/Gemm",
        "/fc2/Gemm",
    ]


def test_an_open_batch_stays_open() -> None:
    network = onnx_reader.load(small_onnx())
    assert (network.batch, network.module_batch) == (None, None)
    assert network.module(images(7)).shape == (7, 5)
    assert check_import(network) < TOLERANCE


def test_a_batch_of_one_in_the_file_is_freed_in_the_module() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(400, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).reshape(1, 400))

    flat = Flat().eval()
    network = onnx_reader.load(onnx_of(flat, batch=1))
    assert (network.batch, network.module_batch) == (1, None)
    both = network.module(images(2)).detach()
    alone = torch.cat([flat(image[None]) for image in images(2)]).detach()
    torch.testing.assert_close(both, alone)


def test_a_batch_that_cannot_be_freed_is_told() -> None:
    """A mean over the batch ties the images together."""
    nodes = [
        conv(target="c"),
        helper.make_node("ReduceMean", ["c"], ["y"], "mean", axes=[0, 2, 3], keepdims=1),
    ]
    network = load(graph(nodes, conv_weights(), shape=(2, 3, 12, 12)))
    assert (network.batch, network.module_batch) == (2, 2)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 0, 2, 3]},
        {"pads": [0, 1, 0, 1], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        {"auto_pad": "VALID"},
        {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    ],
)
@pytest.mark.parametrize("shape", [("n", 3, 12, 12), ("n", 3, "h", "w")])
def test_every_padding_gives_the_runtimes_answers(attributes: dict[str, Any], shape: tuple[Any, ...]) -> None:
    network = load(graph([conv(**attributes)], conv_weights(), shape=shape), input_shape=(3, 12, 12))
    assert kinds(network).count("Conv2d") == 1
    assert check_import(network) < TOLERANCE


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [(6,), (1, 6), (1,), None])
def test_gemm_with_stored_weights_is_a_linear_layer(turned: int, bias: tuple[int, ...] | None) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((6, 3) if turned else (3, 6)).astype(np.float32)}
    if bias:
        weights["b"] = random.standard_normal(bias).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node(
            "Gemm", ["f", "w", *(["b"] if bias else [])], ["y"], "fc", transB=turned, alpha=0.5, beta=2.0
        ),
    ]
    network = load(graph(nodes, weights))
    assert kinds(network).count("Linear") == 1
    assert check_import(network) < TOLERANCE


def test_matmul_with_a_stored_weight_is_a_linear_layer_and_the_added_bias_learns() -> None:
    weights = {"w": np.ones((12, 7), np.float32), "b": np.arange(7, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "fc"),
        helper.make_node("Add", ["m", "b"], ["y"], "add"),
    ]
    network = load(graph(nodes, weights))
    assert list(network.layers) == ["fc"]
    assert network.tensors == {"b": "b"}
    assert isinstance(network.module.get_parameter("b"), nn.Parameter)
    assert check_import(network) < TOLERANCE


def test_weights_in_constant_nodes_are_found() -> None:
    weights = conv_weights()
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in weights.items()
    ]
    network = load(graph([*constants, conv()], {}))
    assert kinds(network).count("Conv2d") == 1
    assert check_import(network) < TOLERANCE


def test_nodes_without_a_name_get_unique_ones() -> None:
    weights = conv_weights(outputs=3) | {
        "other.w": np.ones((4, 3, 1, 1), np.float32),
        "other.b": np.ones(4, np.float32),
    }
    nodes = [conv(target="a"), conv("other", source="a")]
    for node in nodes:
        node.name = ""
    assert list(load(graph(nodes, weights)).layers) == ["Conv_0", "Conv_1"]


def test_a_repeated_name_is_made_unique() -> None:
    weights = conv_weights(outputs=3) | {
        "other.w": np.ones((4, 3, 1, 1), np.float32),
        "other.b": np.ones(4, np.float32),
    }
    nodes = [conv(target="a"), conv("other", source="a")]
    nodes[1].name = "conv"
    assert list(load(graph(nodes, weights)).layers) == ["conv", "conv_1"]


def test_values_whose_names_differ_only_in_punctuation_stay_apart() -> None:
    weights = {"w.a": np.full((2, 3, 1, 1), 1, np.float32), "w_a": np.full((2, 3, 1, 1), 5, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w.a"], ["p"], "one"),
        helper.make_node("Conv", ["x", "w_a"], ["q"], "two"),
        helper.make_node("Sub", ["p", "q"], ["y"], "sub"),
    ]
    assert check_import(load(graph(nodes, weights))) < TOLERANCE


def test_a_layer_used_twice_is_one_module_called_twice() -> None:
    weights = conv_weights(outputs=3)
    nodes = [conv(target="a", pads=[1, 1, 1, 1]), conv(source="a", pads=[1, 1, 1, 1])]
    nodes[1].name = "again"
    network = load(graph(nodes, weights))
    assert network.nodes == {"conv": ("conv", "again")}
    assert check_import(network) < TOLERANCE


def test_pad_over_chosen_axes_is_padded_there() -> None:
    weights = conv_weights() | {
        "p": np.array([1, 2], np.int64),
        "v": np.float32(0),
        "axes": np.array([3], np.int64),
    }
    nodes = [helper.make_node("Pad", ["x", "p", "v", "axes"], ["q"], "pad"), conv(source="q")]
    network = load(graph(nodes, weights, opset=18))
    assert network.module(images(1)).shape == (1, 4, 10, 13)
    assert check_import(network) < TOLERANCE


def test_an_nhwc_network_takes_nchw_images() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 3, 1, 2]), conv(source="t")]
    network = load(graph(nodes, conv_weights(), shape=("n", 10, 12, 3)))
    assert (network.layout, network.input_shape) == ("NHWC", (3, 10, 12))
    assert network.module(torch.zeros(2, 3, 10, 12)).shape == (2, 4, 8, 10)
    assert check_import(network) < TOLERANCE


def test_open_sizes_are_filled_with_what_was_asked_for() -> None:
    model = graph([conv()], conv_weights(), shape=("n", 3, "h", "w"))
    assert load(model, input_shape=(3, 20, 30)).input_shape == (3, 20, 30)
    assert load(model).input_shape == (3, 224, 224)


def test_a_shape_that_the_file_contradicts_is_refused_with_both() -> None:
    with pytest.raises(MethodError) as refused:
        load(graph([conv()], conv_weights()), input_shape=(3, 20, 30))
    assert refused.value.code == "validation_failed"
    assert "[3, 20, 30]" in refused.value.detail
    assert "[3, 12, 12]" in refused.value.detail


def test_local_functions_are_inlined() -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("mine", "Activate", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [conv(target="c"), helper.make_node("Activate", ["c"], ["y"], "act", domain="mine")]
    model = graph(nodes, conv_weights(), domains=["mine"])
    model.functions.append(function)
    assert check_import(load(model)) < TOLERANCE


def test_a_wrong_copy_is_refused_and_the_first_wrong_node_named() -> None:
    network = onnx_reader.load(small_onnx())
    path = network.layers["/down/Conv"]
    with torch.no_grad():
        network.module.get_submodule(path).weight[0] += 1  # type: ignore[operator]
    with pytest.raises(MethodError) as refused:
        check_import(network)
    assert refused.value.code == "import_mismatch"
    assert refused.value.layer == "/down/Conv"


def test_the_newer_exporter_is_read_too() -> None:
    exported = torch.onnx.export(
        small(), (images(2),), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    assert exported is not None
    network = load(exported.model_proto)
    assert (len(network.layers), network.batch) == (6, None)
    assert check_import(network) < TOLERANCE
