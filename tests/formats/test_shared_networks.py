"""Real networks as found in the wild, and trained CIFAR ResNets, through every reader and writer."""

import json
from pathlib import Path

import pytest

from basisconv.cost import count
from basisconv.formats import onnx_reader, onnx_writer, pt2_writer, verify
from basisconv.formats.compare import TOLERANCE, check_import, difference
from tests.formats.nets import answers, compress, onnx_of, pt2_of, read
from tests.support import networks

pytestmark = [pytest.mark.data, pytest.mark.skipif(not networks.has_data(), reason=networks.NO_DATA)]

# file -> convolutions and linear layers with stored weights, batch in the file
FOUND = {
    "cifar10_mlperf_tiny_resnet8": (10, None),
    "cifar10_resnet_2b": (8, 1),
    "imagenet_efficientnet_lite0": (50, None),
    "ppocrv4_text_det": (62, None),
    "ppocr_angle_cls": (54, None),
}


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
