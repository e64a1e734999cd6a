"""Which images a run looks at. Test images are for the final figure alone; everything else is drawn from
the train images, and the draws follow from the seed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basisconv.finetune import TrainingData
from benchmarks.networks import normalisation
from tests.support.networks import Split, cifar10_images, cifar100_images

HELD_BACK = 512  # train images that decide on re-estimated batch norms, never among the calibration images
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Prepared for the network: images n x 3 x 32 x 32, labels (n,), and the images held back."""

    images: Tensor
    labels: Tensor
    held_back: Tensor


def pixels(network: str, split: Split) -> tuple[Pixels, Labels]:
    """All images of a split that the shared data holds, N x 32 x 32 x 3, and their classes."""
    return (cifar100_images if network.startswith("cifar100") else cifar10_images)(split)


def draw(network: str, seed: int, count: int) -> Draw:
    """`count` calibration images and as many held back as HELD_BACK says, without repetition."""
    images, labels = pixels(network, "train")
    order = np.random.default_rng(seed).permutation(len(images))[: count + HELD_BACK]
    prepare = normalisation(network)
    return Draw(
        prepare(images[order[:count]]),
        torch.from_numpy(labels[order[:count]]),
        prepare(images[order[count:]]),
    )


def training(network: str, count: int | None) -> TrainingData:
    """The first `count` train images (None: all) for fine-tuning: the same for every method and seed."""
    images, labels = pixels(network, "train")
    norm = normalisation(network)
    return TrainingData(
        torch.from_numpy(np.ascontiguousarray(images[:count])),
        torch.from_numpy(labels[:count]),
        norm.scale,
        norm.mean,
        norm.std,
    )
