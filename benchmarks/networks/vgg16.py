"""VGG16 with batch norm for 32 x 32 images and 100 classes; `python -m benchmarks.train_vgg16` trains it."""

import os
from pathlib import Path
from typing import cast

from safetensors.torch import load_file
from torch import Tensor, nn

VGG16 = "cifar100_vgg16"
WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: pooling


class Vgg(nn.Module):
    """Thirteen 3x3 convolutions and one linear layer: 313 M MACs, 14.8 M parameters."""

    def __init__(self, classes: int = 100) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            if width:
                steps += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            else:
                steps.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*steps, nn.MaxPool2d(2))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.features(x).flatten(1)))


def vgg16() -> nn.Module:
    """With random weights: normal with a variance of 2 over the outputs' fan, as He et al. 2015."""
    network = Vgg()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network.eval()


def weights_file() -> Path:
    return Path(os.environ.get("BASISCONV_VGG16", "build/bench/cifar100_vgg16.safetensors"))


def trained_vgg16() -> nn.Module:
    """With the weights that `make bench-gpu` trained first.

    Raises FileNotFoundError where it has not.
    """
    network = vgg16()
    network.load_state_dict(load_file(weights_file()))
    return network.eval()
