"""Convolutions over one and three axes and transposed ones: never changed, but counted and written back."""

import copy
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from app.models.schemas import LayerOut
from basisconv.cost import count, describe
from basisconv.errors import MethodError
from basisconv.formats import onnx_reader, onnx_writer, pt2_writer, verify
from basisconv.formats.compare import check_import, difference
from basisconv.formats.network import Network
from tests.formats.nets import SIDE, answers, compress, graph, images, onnx_of, pt2_of, read
from tests.formats.test_inspection import inspect

ROUNDING = 1e-5
KINDS = ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
CLASSES: dict[str, tuple[Any, ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "conv_transpose": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
}
FORMATS = ["onnx", "pt2"]
CHANNELS, OUTPUTS = 6, 4


class Mixed(nn.Module):
    """A convolution of two axes, one layer of another kind, and a linear layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.axes = int(kind[-2])
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        made = CLASSES[kind[:-2]][self.axes - 1]
        self.other = made(CHANNELS, OUTPUTS, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(OUTPUTS, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        y = {1: y.flatten(2), 2: y, 3: y.unsqueeze(2)}[self.axes]
        return self.head(torch.relu(self.other(y)).flatten(2).mean(2))

    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the other layer's input and output, without batch and channels."""
        return {
            1: ((SIDE * SIDE,), (SIDE * SIDE // 2,)),
            2: ((SIDE, SIDE), (SIDE // 2, SIDE // 2)),
            3: ((1, SIDE, SIDE), (1, SIDE // 2, SIDE // 2)),
        }[self.axes]


def mixed(kind: str) -> Mixed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mixed(kind).eval()


def network_of(kind: str, format_: str) -> Network:
    made = mixed(kind)
    return read(onnx_of(made) if format_ == "onnx" else pt2_of(made), format_)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_stands_in_the_layer_table_with_its_costs_and_reason(
    kind: str, format_: str, tmp_path: Path
) -> None:
    made = mixed(kind)
    data = onnx_of(made) if format_ == "onnx" else pt2_of(made)
    result = inspect(tmp_path, data, format_)
    stem, other, head = result["layers"]
    assert LayerOut.model_validate(other).kind == kind  # the service may show it
    assert [row["kind"] for row in result["layers"]] == ["conv2d", kind, "linear"]
    assert (other["compressible"], other["reason"]) == (False, "unsupported_kind")
    assert (other["in_channels"], other["out_channels"], other["groups"]) == (CHANNELS, OUTPUTS, 2)
    assert other["kernel_size"] == [3] * made.axes
    # Each output value of a group sees its filter; of a transposed one, each input value meets one.
    before, after = made.sizes()
    values = CHANNELS * prod(before) * OUTPUTS if "transpose" in kind else OUTPUTS * prod(after) * CHANNELS
    assert other["macs"] == values // 2 * 3**made.axes
    assert other["params"] == sum(p.numel() for p in made.other.parameters())
    assert result["summary"]["macs"] == stem["macs"] + other["macs"] + head["macs"]
    assert result["summary"]["params"] == sum(p.numel() for p in made.parameters())


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_counts_before_and_after_compression_alike(kind: str, format_: str) -> None:
    network = network_of(kind, format_)
    path = next(layer.name for layer in describe(network.module, network.example()) if layer.kind == kind)
    before = count(network.module, network.example())
    after = count(compress(network), network.example())
    assert path in network.layers.values()
    assert before.layers[path] == after.layers[path]
    assert after.macs == sum(layer.macs for layer in after.layers.values()) < before.macs


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_network_around_it_leaves_in_both_formats(
    kind: str, format_: str, tmp_path: Path
) -> None:
    network = network_of(kind, format_)
    check_import(network)
    compressed = compress(network)
    x = images(3)
    write = onnx_writer.write if format_ == "onnx" else onnx_writer.export_onnx
    (by_onnx,) = next(verify.outputs_onnx(write(network, compressed), [x.numpy()], None))
    pt2_writer.write(network, compressed, tmp_path / "out")
    (by_pt2,) = next(verify.outputs_pt2(tmp_path / "out", [x.numpy()], None))
    assert difference(by_onnx, answers(compressed, x)) < ROUNDING
    assert difference(by_pt2, answers(compressed, x)) < ROUNDING


def one_node(kind: str, axes: int, **said: Any) -> onnx.ModelProto:
    """An image, as so many axes of 12 (3: one slice), through one node of ONNX."""
    sizes = {1: [0, 3, -1], 2: [0, 3, 12, 12], 3: [0, 3, 2, 6, 12]}[axes]
    weight = np.random.default_rng(0).standard_normal((3, 3, *[3] * axes)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["x", "sizes"], ["x1"], "shape"),
        helper.make_node(kind, ["x1", "w", "b"], ["y1"], "layer", **said),
        helper.make_node("Reshape", ["y1", "flat"], ["y"], "flatten"),
    ]
    bias = np.arange(3, dtype=np.float32)
    return graph(nodes, {"w": weight, "b": bias, "sizes": np.array(sizes), "flat": np.array([0, -1])})


def assert_read_and_written(model: onnx.ModelProto, kind: str) -> None:
    network = onnx_reader.load(model.SerializeToString())
    check_import(network)
    (layer,) = describe(network.module, network.example())
    assert layer.kind == kind
    changed = copy.deepcopy(network.module)
    with torch.no_grad():
        changed.get_parameter(f"{layer.name}.weight").mul_(2)
    x = images(2)
    (result,) = next(verify.outputs_onnx(onnx_writer.write(network, changed), [x.numpy()], None))
    assert difference(result, answers(changed, x)) < ROUNDING


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"strides": 2, "pads": (1, 1)},
    {"strides": 2, "pads": (0, 1), "output_padding": 1},
    {"strides": 2, "pads": (2, 0)},
    {"strides": 2, "auto_pad": "SAME_UPPER"},
    {"strides": 2, "auto_pad": "SAME_LOWER"},
    {"dilations": 2, "auto_pad": "VALID"},
]


@pytest.mark.parametrize("said", TRANSPOSED, ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_way_to_cut_a_transposed_convolution_gives_the_runtimes_answers(
    axes: int, said: dict[str, Any]
) -> None:
    values = {key: [value] * axes if isinstance(value, int) else value for key, value in said.items()}
    if "pads" in said:
        values["pads"] = [said["pads"][0]] * axes + [said["pads"][1]] * axes
    assert_read_and_written(one_node("ConvTranspose", axes, **values), f"conv_transpose{axes}d")


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("size", [23, 24])
def test_a_transposed_convolution_that_names_its_output_is_cut_to_it(upper: bool, size: int) -> None:
    said = {"strides": [2, 2], "output_shape": [size, size]}
    model = one_node("ConvTranspose", 2, **said, auto_pad="SAME_UPPER" if upper else "SAME_LOWER")
    assert_read_and_written(model, "conv_transpose2d")


@pytest.mark.parametrize(
    "said",
    [
        {"pads": (1, 1), "strides": 2},
        {"pads": (0, 2)},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER", "strides": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("axes", [1, 3])
def test_every_padding_over_one_and_three_axes_gives_the_runtimes_answers(
    axes: int, said: dict[str, Any]
) -> None:
    values = {key: [value] * axes if isinstance(value, int) else value for key, value in said.items()}
    if "pads" in said:
        values["pads"] = [said["pads"][0]] * axes + [said["pads"][1]] * axes
    assert_read_and_written(one_node("Conv", axes, **values), f"conv{axes}d")


def test_a_layer_whose_automatic_padding_differs_between_its_calls_is_read() -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((3, 3, 3, 3)).astype(np.float32)}
    names = ["x", "y1", "y2", "y"]
    nodes = [
        helper.make_node("Conv", [a, "w"], [b], f"to_{b}", strides=[2, 2], auto_pad="SAME_UPPER")
        for a, b in pairwise(names)
    ]  # 13 and 7 pixels need one on each side, 4 need one at the end
    network = onnx_reader.load(graph(nodes, weights, shape=("n", 3, 13, 13)).SerializeToString())
    check_import(network)
    assert len(network.layers) == 1


@pytest.mark.parametrize("said", [{"strides": [2]}, {"dilations": [1, 1, 1]}, {"pads": [1, 1]}])
def test_numbers_for_another_count_of_axes_are_a_problem_that_names_the_node(said: dict[str, Any]) -> None:
    model = one_node("Conv", 2, **said)
    with pytest.raises(MethodError) as caught:
        onnx_reader.load(model.SerializeToString())
    assert caught.value.code == "malformed_model"
    assert caught.value.layer in (None, "layer")
