"""Real networks as found in the wild, and trained CIFAR ResNets, through every reader and writer."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from basisconv import DecomposeConfig, Decomposition, Reason, count, decompose_
from basisconv.formats import onnx_reader, onnx_writer, pt2_writer, verify
from basisconv.formats.compare import TOLERANCE, check_import, difference
from basisconv.formats.network import Network
from basisconv.formats.onnx_padding import pad_same
from tests.formats.nets import answers, compress, onnx_of, pt2_of, read
from tests.support import networks

pytestmark = [pytest.mark.data, pytest.mark.skipif(not networks.has_data(), reason=networks.NO_DATA)]

# file -> convolutions (transposed ones too) and linear layers with stored weights, batch in the file
FOUND = {
    "cifar10_mlperf_tiny_resnet8": (10, None),
    "cifar10_resnet_2b": (8, 1),
    "imagenet_efficientnet_lite0": (50, None),
    "ppocrv4_text_det": (64, None),
    "ppocr_angle_cls": (54, None),
}
UNEVEN = ("imagenet_efficientnet_lite0",)  # with convolutions that a pair replaces behind uneven pads


def path_of(name: str) -> Path:
    return networks.data_root() / "onnx_models" / f"{name}.onnx"


@pytest.mark.parametrize("name", FOUND)
def test_networks_as_found_are_read_and_written_back(name: str) -> None:
    network = onnx_reader.load(path_of(name))
    assert (len(network.layers), network.batch) == FOUND[name]
    assert network.module_batch is None
    assert check_import(network) < TOLERANCE
    compressed = compress(network, 0.9)
    x = network.example(network.batch or 2)
    (result,) = next(verify.outputs_onnx(onnx_writer.write(network, compressed), [x.numpy()], network.batch))
    assert difference(result, answers(compressed, x)) < TOLERANCE


@pytest.mark.parametrize("name", ["cifar10_resnet_2b", "cifar10_mlperf_tiny_resnet8"])
def test_networks_as_found_answer_on_real_images_as_their_authors_say(name: str) -> None:
    """The first 1000 test images; the sidecar's figure is of all 10,000 (standard error 1.5 points)."""
    said = json.loads(path_of(name).with_suffix(".json").read_text())
    pixels, labels = networks.cifar10_images("test", 1000)
    mean, std = said["input"].get("mean", [0, 0, 0]), said["input"].get("std", [1, 1, 1])
    scale = 255.0 if "mean" in said["input"] else 1.0
    prepare = networks.Normalisation(scale, tuple(mean), tuple(std))
    network = onnx_reader.load(path_of(name))
    top1 = float((answers(network.module, prepare(pixels)).argmax(1) == labels).mean())
    assert abs(100 * top1 - said["measured_top1"]) < 5


@pytest.mark.parametrize(
    ("name", "batch"), [("cifar10_resnet20_a", None), ("cifar10_resnet20_b", 1), ("cifar10_plain_cnn", 1)]
)
def test_trained_networks_come_through_pt2(name: str, batch: int | None, tmp_path: Path) -> None:
    original = networks.load(name)
    pixels, _ = networks.cifar10_images("test", 4)
    x = networks.normalisation(name)(pixels)
    data = pt2_of(original, batch, x[: batch or 2])
    network = read(data, "pt2")
    assert (network.batch, network.module_batch) == (batch, None)
    assert difference(answers(network.module, x), answers(original, x)) < 1e-6
    assert count(network.module, x).params == sum(p.numel() for p in original.parameters())
    compressed = compress(network, 0.9)
    pt2_writer.write(network, compressed, tmp_path / "out")
    (result,) = next(verify.outputs_pt2(tmp_path / "out", [x.numpy()], batch))
    assert difference(result, answers(compressed, x)) < 1e-5


def test_a_trained_network_comes_through_onnx() -> None:
    """Batch norms kept apart, so that the parameters are the published 269,722."""
    original = networks.load("cifar10_resnet20_a")
    network = onnx_reader.load(onnx_of(original, side=32))
    pixels, _ = networks.cifar10_images("test", 4)
    x = networks.normalisation("cifar10_resnet20_a")(pixels)
    costs = count(network.module, x)
    assert (costs.macs, costs.params, len(network.layers)) == (40_551_040, 269_722, 20)
    assert difference(answers(network.module, x), answers(original, x)) < 1e-5


def lines_of_text(network: Network) -> torch.Tensor:
    """The detector's own kind of input: its drawn page, as its sidecar says to prepare it."""
    page = np.load(path_of("ppocrv4_text_det").with_name("ppocrv4_det_reference.npz"))["image_rgb"]
    said = json.loads(path_of("ppocrv4_text_det").with_suffix(".json").read_text())["input"]
    x = networks.Normalisation(255.0, tuple(said["mean"]), tuple(said["std"]))(page[None, :, :, ::-1])
    return torch.cat([x[..., :160, i : i + 160] for i in range(0, 481, 160)])


def smooth(network: Network) -> torch.Tensor:
    """No images of their kind are at hand: neighbouring pixels are alike, as in photographs."""
    channels, height, width = network.input_shape
    noise = torch.randn(
        8, channels, -(-height // 2), -(-width // 2), generator=torch.Generator().manual_seed(3)
    )
    return torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear")


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        *((name, "weights") for name in FOUND),
        ("cifar10_resnet_2b", "activations"),
        pytest.param("cifar10_mlperf_tiny_resnet8", "activations", marks=pytest.mark.slow),
        pytest.param("imagenet_efficientnet_lite0", "activations", marks=pytest.mark.slow),
        pytest.param("ppocrv4_text_det", "activations", marks=pytest.mark.slow),
    ],
)
def test_networks_as_found_are_compressed_within_their_budget_and_written_back(name: str, basis: str) -> None:
    """Among them uneven pads, automatic padding, depthwise and transposed layers, and squeeze and excite."""
    free = {"ppocrv4_text_det": (3, 160, 160), "ppocr_angle_cls": (3, 48, 96)}
    network = onnx_reader.load(path_of(name), input_shape=free.get(name))
    x = lines_of_text(network) if name == "ppocrv4_text_det" else smooth(network)
    compressed = copy.deepcopy(network.module)
    before = count(compressed, x[:1])
    config = DecomposeConfig(basis, "macs", 0.6)  # type: ignore[arg-type]
    *_, end = decompose_(compressed, x[:1], config, lambda: iter(x.split(2)))
    assert isinstance(end, Decomposition)
    assert 0.59 * before.macs < end.costs.macs <= 0.6 * before.macs
    assert all(layer.replaced or Reason(str(layer.reason)).sentence for layer in end.layers)
    written = onnx_writer.write(network, compressed)
    (result,) = next(verify.outputs_onnx(written, [x[:2].numpy()], network.batch))
    assert np.isfinite(result).all()
    assert difference(result, answers(compressed, x[:2])) < TOLERANCE
    outcome = {layer.name: layer for layer in end.layers}
    uneven = [path for path in outcome if path in padded_by_a_node(network)]
    if (name, basis) != ("imagenet_efficientnet_lite0", "activations"):  # on noise its stem is spared
        assert any(outcome[path].replaced for path in uneven) == (name in UNEVEN)


def padded_by_a_node(network: Network) -> set[str]:
    """Layers whose padding torch cannot say: in the graph it stands in front of them."""
    nodes = network.module.graph.nodes
    return {str(n.target) for n in nodes if n.op == "call_module" and n.args[0].target in (F.pad, pad_same)}


@pytest.mark.slow
def test_a_compressed_detector_still_finds_the_lines() -> None:
    """Whole page, at 80 % of its operations, fitted on four crops of it."""
    network = onnx_reader.load(path_of("ppocrv4_text_det"), input_shape=(3, 160, 160))
    x = lines_of_text(network)
    compressed = copy.deepcopy(network.module)
    list(decompose_(compressed, x[:1], DecomposeConfig(target_value=0.8), lambda: iter(x.split(2))))
    before, after = (answers(module, x) > 0.3 for module in (network.module, compressed))
    assert (before & after).sum() > 0.8 * (before | after).sum()
