"""What all contenders get: the same network, the same images, the same threads."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.networks.resnet50 import WIDTH
from tests.support.networks import cifar10_images


@dataclass(frozen=True)
class Setting:
    """`images` of `pixels` x `pixels`; `keep`: share of MACs to keep; `layers`, `candidates`: how many of
    its own a greedy peer is measured on. `base`: channels of the network's first layer."""

    images: int = 64
    pixels: int = 224
    keep: float = 0.5
    threads: int = 1
    layers: int = 6
    candidates: int = 3
    batch: int = 16
    base: int = WIDTH

    def pictures(self) -> Tensor:
        """CIFAR-10's first train images, upscaled: images n x 3 x pixels x pixels, about standardised."""
        found, _ = cifar10_images("train", self.images)
        small_NCHW = torch.from_numpy(found.copy()).permute(0, 3, 1, 2).float() / 255
        scaled = F.interpolate(small_NCHW, size=self.pixels, mode="bilinear")
        return (scaled - 0.46) / 0.25


def asked() -> Setting:
    """From the command line of a contender's process, as JSON."""
    setting = Setting(**json.loads(sys.argv[1]))
    torch.set_num_threads(setting.threads)
    return setting


def answer(found: Mapping[str, object]) -> None:
    """The last line of a contender's output."""
    print(json.dumps(found), flush=True)
