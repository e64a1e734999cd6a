"""What the README's walk-through is about: a ResNet-20 for CIFAR-10, and images."""

from pathlib import Path
from typing import Final

import numpy as np

from scripts.prepare_cifar import save_images, save_network
from tests.support import networks

NAME: Final = "cifar10_resnet20_a"
IMAGES: Final = {"train": 1000, "test": 400}


def make(folder: Path) -> None:
    """The trained network and some of its images where the shared data are, else both drawn."""
    if (folder / "cifar10.npz").exists():
        return
    if networks.has_data():
        save_network(networks.load(NAME), folder)
        save_images(folder, IMAGES["train"], IMAGES["test"])
        return
    save_network(networks.build(NAME), folder)
    random = np.random.default_rng(0)
    drawn = {f"x_{part}": random.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in IMAGES.items()}
    drawn |= {f"y_{part}": random.integers(0, 10, n) for part, n in IMAGES.items()}
    np.savez(folder / "cifar10.npz", **drawn)
