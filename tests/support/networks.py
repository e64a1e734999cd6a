"""Real trained networks and real images for tests, benchmarks and the README's walk-through.

Nothing here is committed data: everything is read from the folder that BASISCONV_DATA names, or from
``../shared/data`` beside the repository. Plain torch, numpy, Pillow and safetensors.
"""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

RESNETS = (
    "cifar10_resnet20_a",
    "cifar10_resnet20_b",
    "cifar10_resnet56_a",
    "cifar10_resnet56_b",
    "cifar100_resnet20_b",
    "cifar100_resnet56_b",
)
PLAIN = "cifar10_plain_cnn"
NAMES = (*RESNETS, PLAIN)
Split = Literal["train", "test"]


def data_root() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("BASISCONV_DATA", beside))


def has_data() -> bool:
    return (data_root() / "cifar_resnets").is_dir()


NO_DATA = "the shared networks and images are missing (set BASISCONV_DATA)"


@dataclass(frozen=True)
class Normalisation:
    """x / scale, then (x - mean) / std per channel: the `input` of the REST contract."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(images_NHWC)).permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        return (x / self.scale - mean) / std


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        changes = stride != 1 or in_channels != out_channels
        self.pad = out_channels // 4 if changes and shortcut == "A" else 0
        self.downsample: nn.Module | None = None
        if changes and shortcut == "B":
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            return cast(Tensor, self.downsample(x))
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """He et al. 2015 for 32 x 32 images; shortcut A (no weights) or B (1x1 conv)."""

    def __init__(self, depth: int, classes: int, shortcut: str) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1, shortcut)
        self.layer2 = self._stage(16, 32, blocks, 2, shortcut)
        self.layer3 = self._stage(32, 64, blocks, 2, shortcut)
        self.head = "linear" if shortcut == "A" else "fc"
        self.add_module(self.head, nn.Linear(64, classes))

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride, shortcut)
        rest = (BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return cast(Tensor, self.get_submodule(self.head)(x))


class PlainCnn(nn.Module):
    """VGG-like: conv with bias, then ReLU, then batch norm; raw 0..255 input; ReLU on the logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 64, 64, 128, 128, 64, 64)
        for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, 3))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b, eps=1e-3))
        self.fc1 = nn.Linear(64, 1024)
        self.fc2 = nn.Linear(1024, 512)
        self.fc3 = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 7):
            x = self.get_submodule(f"bn{i}")(F.relu(self.get_submodule(f"conv{i}")(x)))
            x = F.max_pool2d(x, 2) if i in (2, 4) else x
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return F.relu(self.fc3(x))


def _files(name: str) -> tuple[Path, Path]:
    folder = data_root() / (PLAIN if name == PLAIN else "cifar_resnets")
    return folder / f"{name}.safetensors", folder / f"{name}.json"


def build(name: str) -> nn.Module:
    """The architecture alone, with torch's own random weights."""
    if name == PLAIN:
        return PlainCnn().eval()
    data, net, shortcut = name.split("_")
    classes = 100 if data == "cifar100" else 10
    return CifarResNet(int(net.removeprefix("resnet")), classes, shortcut.upper()).eval()


def load(name: str) -> nn.Module:
    """One of NAMES with its trained weights, in eval mode."""
    network = build(name)
    missing, unexpected = network.load_state_dict(load_file(_files(name)[0]), strict=False)
    wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + unexpected
    if wrong:
        raise ValueError(f"{name}: keys that do not match: {wrong}")
    return network


@cache
def normalisation(name: str) -> Normalisation:
    sidecar = json.loads(_files(name)[1].read_text())["input"]
    scale = 1.0 if name == PLAIN else 255.0
    return Normalisation(scale, tuple(sidecar["mean"]), tuple(sidecar["std"]))


@cache
def _mosaic(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10000, 32, 32, 3)


def _images(
    folder: str, split: Split, n: int | None, start: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    root = data_root() / folder
    files = [root / "test.webp"] if split == "test" else sorted(root.glob("train_[0-9].webp"))
    stop = 10_000 * len(files) if n is None else start + n
    parts = [_mosaic(path) for path in files[: -(-stop // 10_000)]]
    images = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if folder == "cifar100" and split == "train":
        labels = np.concatenate([np.load(p.with_name(f"{p.stem}_labels.npy")) for p in files])
    else:
        labels = np.load(root / f"{split}_labels.npy", allow_pickle=False)
    return images[start:stop], labels[start : min(stop, len(images))].astype(np.int64)


def cifar10_images(
    split: Split, n: int | None = None, start: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64, in the data set's own order.

    ``train`` has 30,000 images here, ``test`` 10,000. A mosaic is decoded (0.5 s) only when needed.
    """
    return _images("cifar10", split, n, start)


def cifar100_images(
    split: Split, n: int | None = None, start: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As cifar10_images; ``train`` has 20,000 images here; labels are the fine classes."""
    return _images("cifar100", split, n, start)


def batches(name: str, images_NHWC: NDArray[np.uint8], size: int = 128) -> Iterator[Tensor]:
    """Preprocessed float batches (n, 3, 32, 32) for the network `name`."""
    prepare = normalisation(name)
    for start in range(0, len(images_NHWC), size):
        yield prepare(images_NHWC[start : start + size])


@torch.no_grad()
def accuracy(network: nn.Module, name: str, n: int | None = None) -> float:
    """Top-1 share on the first n test images (all 10,000 when n is None)."""
    images, labels = (cifar100_images if name.startswith("cifar100") else cifar10_images)("test", n)
    answers = torch.cat([network(x).argmax(1) for x in batches(name, images, 500)])
    return float((answers == torch.from_numpy(labels)).double().mean())
