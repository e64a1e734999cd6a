"""The figures the method promises, on real networks and real images, without any training."""

from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import nn

from basisconv import DecomposeConfig, Decomposition, count, decompose_
from basisconv.datafree import Pixels, SynthesisConfig, Synthetic, synthesize
from basisconv.foretell import accuracy_lost
from basisconv.measure import measure
from basisconv.smallest import smallest
from tests.support.networks import NO_DATA, accuracy, batches, cifar10_images, has_data, load, normalisation

pytestmark = [pytest.mark.data, pytest.mark.skipif(not has_data(), reason=NO_DATA)]
EXAMPLE = torch.zeros(1, 3, 32, 32)


def compress(name: str, images: int, **config) -> tuple[nn.Module, Decomposition]:
    network = load(name)
    pixels, _ = cifar10_images("train", images)
    *_, end = decompose_(network, EXAMPLE, DecomposeConfig(**config), lambda: batches(name, pixels))
    assert isinstance(end, Decomposition)
    return network, end


def test_seventy_percent_of_a_resnets_operations_cost_under_two_points_and_weights_cost_far_more():
    name = "cifar10_resnet20_a"  # 256 images here; 91.2 of 91.7 % on all test images with 1024
    macs = count(load(name), EXAMPLE).macs
    found = {}
    for basis in ("activations", "weights"):
        network, end = compress(name, 256, basis=basis, target_kind="macs", target_value=0.7, forms="basis")
        assert end.costs.macs <= 0.7 * macs
        found[basis] = accuracy(network, name, 2000)
    assert found["activations"] > accuracy(load(name), name, 2000) - 0.02
    assert found["weights"] < found["activations"] - 0.1


@pytest.mark.slow
def test_without_any_image_a_resnet_keeps_nearly_all_its_answers_and_weights_lose_a_quarter():
    name = "cifar10_resnet20_a"
    network, input_ = load(name), normalisation(name)
    pixels = Pixels.normalised(input_.scale, input_.mean, input_.std)
    *_, made = synthesize(network, EXAMPLE, pixels, SynthesisConfig(images=96, held_back=32, work_macs=2e11))
    assert isinstance(made, Synthetic)
    *_, _end = decompose_(
        network, EXAMPLE, DecomposeConfig(target_value=0.7), lambda: iter(made.calibration.split(48))
    )
    by_weights, _ = compress(name, 1, basis="weights", target_value=0.7, forms="basis")
    assert count(network, EXAMPLE).macs <= 0.7 * count(load(name), EXAMPLE).macs
    found = accuracy(network, name, 2000)
    assert found > accuracy(load(name), name, 2000) - 0.04
    assert found > accuracy(by_weights, name, 2000) + 0.2


def test_a_network_on_raw_pixels_with_norms_behind_the_activations_is_compressed_too():
    name = "cifar10_plain_cnn"
    before = count(load(name), EXAMPLE)
    network, end = compress(name, 128, target_kind="params", target_value=0.5)
    assert end.costs.params <= 0.5 * before.params
    assert accuracy(network, name, 1000) > accuracy(load(name), name, 1000) - 0.05
    assert any(layer.replaced for layer in end.layers if layer.name.startswith("fc"))


def returned(steps: Generator[object, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_smallest_network_within_a_point_is_far_smaller_and_keeps_the_promise_on_the_test_images():
    name = "cifar10_resnet20_a"
    original = load(name)
    (seen, _), (held, labels) = cifar10_images("train", 256), cifar10_images("train", 2000, start=256)

    def scores(network: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([network(x) for x in batches(name, held, 500)])

    reference, right = scores(original), torch.from_numpy(labels)
    config, calibration = DecomposeConfig(target_value=1.0), lambda: batches(name, seen)
    measured = returned(measure(original, EXAMPLE, config, calibration))
    judge = lambda network: accuracy_lost(scores(network), reference, right)  # noqa: E731
    found = returned(smallest(original, EXAMPLE, config, measured, judge, 0.01, calibration))
    assert found.found is not None
    assert found.decomposition.costs.macs < 0.75 * measured.costs.macs
    # A standard error of 0.4 points on 2,000 images.
    assert accuracy(found.module, name, 2000) > accuracy(original, name, 2000) - 0.01 - 2 * 0.004
