"""The networks that are compared, by name: the trained ones of the shared data, and ResNet-50 for speed.

Weights and images are read by the loader that the tests use, so that both speak of the same networks.
"""

import torch
from torch import Tensor, nn

from benchmarks.networks.mlperf import MLPERF, NORMALISATION, found_mlperf
from benchmarks.networks.vgg16 import VGG16, trained_vgg16, vgg16
from tests.support import networks as shared

__all__ = ["EXAMPLE", "MLPERF", "VGG16", "build", "example", "load", "normalisation"]
EXAMPLE = torch.zeros(1, 3, 32, 32)


def build(name: str) -> nn.Module:
    """The architecture alone."""
    return vgg16() if name == VGG16 else shared.build(name)


def load(name: str) -> nn.Module:
    """The trained network, in eval mode."""
    if name == MLPERF:
        return found_mlperf()
    return trained_vgg16() if name == VGG16 else shared.load(name)


def normalisation(name: str) -> shared.Normalisation:
    """Pixels to the network's input."""
    if name == MLPERF:
        return NORMALISATION
    return shared.normalisation("cifar100_resnet56_b" if name == VGG16 else name)


def example() -> Tensor:
    return EXAMPLE.clone()
