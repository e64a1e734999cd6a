"""Calibration without images: what the images made from a network promise."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basisconv import DecomposeConfig, Decomposition, count, decompose_
from basisconv.datafree import Pixels, SynthesisConfig, Synthetic, natural_noise, synthesize
from basisconv.datafree.norms import mismatch, observe
from tests.method.shelf import Mixed, Residual, randomize

EXAMPLE = torch.zeros(1, 3, 12, 12)
SMALL = SynthesisConfig(images=24, held_back=8, work_macs=0, least_passes=960)  # 10 steps
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
CIFAR = Pixels.normalised(255, MEAN, STD)


def make(
    module: nn.Module,
    example: Tensor = EXAMPLE,
    config: SynthesisConfig = SMALL,
    pixels: Pixels | None = None,
) -> Synthetic:
    *_, made = synthesize(module, example, pixels, config)
    assert isinstance(made, Synthetic)
    return made


def remembering(seed: int = 0) -> nn.Module:
    """A network whose batch norms hold the statistics of smooth images that nobody else has."""
    network = randomize(Residual(), seed)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean over all batches
            norm.reset_running_stats()
    draw = torch.Generator().manual_seed(99)
    network.train()
    with torch.no_grad():
        for _ in range(8):
            coarse = torch.randn(32, 3, 3, 3, generator=draw)
            network(1.5 * F.interpolate(coarse, size=12, mode="bilinear") + 0.5)
    return network.eval()


@torch.no_grad()
def distance(network: nn.Module, x: Tensor) -> float:
    return float(mismatch(observe(network, x)))


def test_the_same_seed_makes_the_same_images_and_another_seed_others():
    network = remembering()
    first, again = make(network), make(network)
    other = make(network, config=replace(SMALL, seed=1))
    assert torch.equal(first.calibration, again.calibration)
    assert torch.equal(first.held_back, again.held_back)
    assert not torch.equal(first.calibration, other.calibration)


def test_batch_norms_see_of_them_what_they_remember():
    network = remembering()
    made = make(network)
    noise = natural_noise(32, (3, 12, 12), Pixels.unknown(3), 0)
    before, after = made.mismatch
    assert before == pytest.approx(distance(network, noise), rel=1e-3)
    whole = torch.cat([made.calibration, made.held_back])
    assert after == pytest.approx(distance(network, whole), rel=1e-3)
    assert after < 0.5 * before


def test_the_reported_mismatch_is_of_the_whole_set_however_it_was_cut_into_batches():
    network = remembering()
    made = make(network, config=replace(SMALL, images=6, held_back=2, batch_size=2), pixels=CIFAR)
    whole = torch.cat([made.calibration, made.held_back])
    assert len(whole) == 8
    assert made.mismatch[1] == pytest.approx(distance(network, whole), rel=1e-3)
    assert made.mismatch[1] < 0.5 * made.mismatch[0]


def in_bytes(x: Tensor) -> Tensor:
    return (x * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)) * 255


def test_pixels_stay_between_black_and_white():
    pixels = in_bytes(make(remembering(), pixels=CIFAR).calibration)
    assert pixels.min() > -0.01
    assert pixels.max() < 255.01


def test_a_mean_and_std_that_were_measured_are_believed_and_others_are_not():
    assert (CIFAR.mean, CIFAR.std) == ((0.0,) * 3, (1.0,) * 3)
    for scale, mean, std in ((255.0, 0.0, 1.0), (255.0, 0.5, 0.5), (1.0, 0.0, 1.0), (1.0, 127.5, 127.5)):
        pixels = Pixels.normalised(scale, (mean,), (std,))
        noise = natural_noise(64, (1, 16, 16), pixels, 0)
        bytes_ = (noise * std + mean) * scale
        assert 80 < bytes_.mean() < 150
        assert 30 < bytes_.std() < 80
        assert bytes_.min() >= -0.01
        assert bytes_.max() <= 255.01


def test_noise_has_the_spectrum_of_photographs_neighbours_and_channels_are_alike():
    x = natural_noise(64, (3, 32, 32), Pixels.unknown(3), 0)
    near = (x[..., 1:] * x[..., :-1]).mean() / x.square().mean()
    far = (x[..., 16:] * x[..., :-16]).mean() / x.square().mean()
    assert near > 0.8 > far + 0.3
    assert (x[:, 0] * x[:, 1]).mean() / x.square().mean() > 0.7


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 7), (2, 3, 3)])
def test_noise_of_any_shape_is_finite(shape: tuple[int, int, int]):
    x = natural_noise(3, shape, Pixels.unknown(shape[0]), 0)
    assert x.shape == (3, *shape)
    assert x.isfinite().all()


def test_the_network_is_left_as_it_was():
    network = remembering()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    make(network)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not any(child._forward_hooks for child in network.modules())


class Passes:
    """Images that went through a network, and whether each batch was of the size it takes."""

    def __init__(self, network: nn.Module) -> None:
        self.images = 0
        self.sizes: set[int] = set()
        network.register_forward_pre_hook(self._note)

    def _note(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images += len(inputs[0])
        self.sizes.add(len(inputs[0]))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_no_more_work_is_spent_than_was_given(share: float):
    network = remembering()
    passes = Passes(network)
    work = share * 3 * 20 * 24 * count(network, EXAMPLE).macs
    passes.images = 0
    made = make(network, config=SynthesisConfig(16, 4, work_macs=work, least_passes=0))
    looks = 2 * 20 + 3  # the set at the start and at the end, and single images to see what there is
    moved = made.steps * (len(made.calibration) + len(made.held_back))
    assert passes.images <= moved + looks
    assert 3 * moved * count(network, EXAMPLE).macs <= 1.01 * work
    assert 3 * moved * count(network, EXAMPLE).macs >= 0.8 * work


def test_where_no_work_is_allowed_as_much_is_done_as_measuring_takes():
    least = make(remembering(), config=SynthesisConfig(images=256, held_back=64, work_macs=0.0))
    assert 3 * least.steps * (len(least.calibration) + len(least.held_back)) <= 1024


def test_a_network_with_a_fixed_batch_gets_only_that():
    network = remembering()
    passes = Passes(network)
    config = replace(SMALL, images=20, held_back=5, batch_size=4)
    made = make(network, torch.zeros(4, 3, 12, 12), config)
    assert passes.sizes == {4}
    assert len(made.calibration) + len(made.held_back) == 28


def test_a_network_without_batch_norms_gets_noise():
    made = make(randomize(Mixed()), torch.zeros(1, 4, 12, 12))
    assert (made.norms, made.steps, made.mismatch) == (0, 0, (0.0, 0.0))
    assert torch.cat([made.calibration, made.held_back]).std() == pytest.approx(1, rel=0.2)


class Depthwise(nn.Module):
    """A depthwise-separable block with norms between; its output is an image, not classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1, groups=1), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(16, 32, 3, padding=1, groups=2), nn.BatchNorm2d(32), nn.ReLU(inplace=True)),
            nn.Conv2d(32, 8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_grouped_and_depthwise_networks_that_are_no_classifiers_are_fitted_and_compressed():
    network = randomize(Depthwise())
    made = make(network)
    assert made.norms == 3
    assert made.mismatch[1] < made.mismatch[0]
    config = DecomposeConfig(target_kind="macs", target_value=0.8)
    *_, end = decompose_(network, EXAMPLE, config, lambda: iter(made.calibration.split(16)))
    assert isinstance(end, Decomposition)
    assert any(layer.replaced for layer in end.layers)


class Severed(nn.Module):
    """Cuts its own gradients off: nothing can be moved towards what its norms remember."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.detach())


def test_where_nothing_can_be_moved_the_noise_is_given():
    made = make(Severed(remembering()))
    assert made.steps == 0
    assert made.calibration.std() == pytest.approx(1, rel=0.2)


def test_statistics_that_no_image_can_have_leave_finite_images():
    network = remembering()
    network.block1.bn1.running_var.fill_(1e30)  # type: ignore[union-attr, operator]
    network.block2.bn1.running_var.zero_()  # type: ignore[union-attr, operator]
    made = make(network)
    assert made.calibration.isfinite().all()
    assert made.mismatch[1] <= made.mismatch[0]
