"""Stored values that pass through Identity nodes, as the older torch exporter writes equal ones."""

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, helper
from torch import Tensor, nn

from basisconv.formats import onnx_reader, onnx_writer, verify
from basisconv.formats.compare import difference
from basisconv.formats.network import Network
from tests.formats.nets import answers, compress, conv, conv_weights, graph, images, onnx_of

ROUNDING = 1e-5


def load(model: ModelProto) -> Network:
    return onnx_reader.load(model.SerializeToString())


def same(source: str, target: str) -> NodeProto:
    return helper.make_node("Identity", [source], [target], f"same_{target}")


def moved(network: Network, *paths: str) -> torch.fx.GraphModule:
    """A copy whose parameters at `paths` differ, each in its own way."""
    module = copy.deepcopy(network.module)
    with torch.no_grad():
        for number, path in enumerate(paths, start=1):
            module.get_parameter(path).add_(0.3 * number)
    return module


def assert_says_the_same(network: Network, changed: nn.Module) -> ModelProto:
    """What is written passes the checker and answers in ONNX Runtime as `changed` does."""
    model = onnx_writer.write(network, changed)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    x: Tensor = images(3)
    (result,) = next(verify.outputs_onnx(model, [x.numpy()], None))
    assert difference(result, answers(changed, x)) < ROUNDING
    return model


def two_convs(*identities: NodeProto, **renamed: str) -> ModelProto:
    """Two convolutions with equal biases; `renamed`: what the second one's `w` and `b` are called."""
    second = helper.make_node("Conv", ["y1", renamed.get("w", "two.w"), renamed["b"]], ["y"], "two")
    weights = {**conv_weights("one", 3), "two.w": conv_weights("two", 3)["two.w"] * 2}
    if "w" in renamed:
        del weights["two.w"]
    return graph([*identities, conv("one", target="y1"), second], weights)


def test_a_layer_behind_identities_is_a_layer() -> None:
    network = load(two_convs(same("one.w", "w"), same("one.b", "b"), w="w", b="b"))
    assert list(network.layers) == ["one", "two"]


@pytest.mark.parametrize(
    "paths", [("one.bias",), ("two.bias",), ("one.bias", "two.bias"), ("two.weight", "one.weight")]
)
@pytest.mark.parametrize("links", [1, 2])
def test_each_layer_gets_its_own_value_back(paths: tuple[str, ...], links: int) -> None:
    chain = [same("one.b", "b"), same("one.w", "w")]
    if links == 2:
        chain = [same("one.b", "b0"), same("b0", "b"), same("one.w", "w0"), same("w0", "w")]
    network = load(two_convs(*chain, w="w", b="b"))
    assert_says_the_same(network, moved(network, *paths))


def test_unchanged_weights_leave_the_file_as_it_was() -> None:
    source = two_convs(same("one.b", "b"), b="b")
    network = load(source)
    assert onnx_writer.write(network, network.module).graph == source.graph


def test_pairs_take_the_place_of_layers_behind_identities() -> None:
    network = load(two_convs(same("one.w", "w"), same("one.b", "b"), w="w", b="b"))
    model = assert_says_the_same(network, compress(network))
    assert "w" not in {value for node in model.graph.node for value in node.output}


def test_an_identity_of_a_constant_node_is_followed() -> None:
    weights = conv_weights("two", 3)
    bias = onnx.numpy_helper.from_array(weights.pop("two.b"))
    nodes = [helper.make_node("Constant", [], ["c"], value=bias), same("c", "two.b"), conv("two")]
    network = load(graph(nodes, weights))
    assert network.module.get_parameter("two.bias").numel() == 3
    assert_says_the_same(network, moved(network, "two.bias"))


def test_a_value_that_is_added_and_is_a_bias_too_may_become_two() -> None:
    """The Add's copy is the stored value; the convolution's bias is another parameter."""
    weights = {**conv_weights("one", 3), "shift": np.ones(3, np.float32)}
    weights["one.b"] = weights.pop("shift")
    shaped = helper.make_node("Unsqueeze", ["one.b", "axes"], ["column"], "column")
    add = helper.make_node("Add", ["y1", "column"], ["y"], "add")
    nodes = [same("one.b", "b"), helper.make_node("Conv", ["x", "one.w", "b"], ["y1"], "one"), shaped, add]
    network = load(graph(nodes, {**weights, "axes": np.array([1, 2])}))
    (free,) = network.tensors
    assert_says_the_same(network, moved(network, free))
    assert_says_the_same(network, moved(network, free, "one.bias"))


def test_a_stored_double_stays_a_double_when_it_changes() -> None:
    weights: dict[str, Any] = {**conv_weights("one", 3), "shift": np.full((1, 3, 1, 1), 0.1)}
    wide = helper.make_node("Cast", ["y1"], ["y2"], "wide", to=onnx.TensorProto.DOUBLE)
    add = helper.make_node("Add", ["y2", "shift"], ["y3"], "add")
    narrow = helper.make_node("Cast", ["y3"], ["y"], "narrow", to=onnx.TensorProto.FLOAT)
    network = load(graph([conv("one", target="y1"), wide, add, narrow], weights))
    assert_says_the_same(network, network.module)
    (free,) = network.tensors
    assert_says_the_same(network, moved(network, free))


class Twins(nn.Module):
    """An untrained residual stage: all batch norms equal."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for norm, layer in zip(self.norms, self.convs, strict=True):
            y = y + torch.relu(norm(layer(y)))
        return y.mean((2, 3))


def test_an_untrained_network_of_the_older_exporter_keeps_its_norms_apart() -> None:
    torch.manual_seed(0)
    made = Twins()
    for layer in [made.stem, *made.convs]:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    network = load(onnx.load_model_from_string(onnx_of(made.eval())))
    norms = [child for child in network.module.modules() if isinstance(child, nn.BatchNorm2d)]
    assert len(norms) == 3
    assert len(network.layers) == 4
    assert_says_the_same(network, compress(network))
