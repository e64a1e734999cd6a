"""Training images held as they came, prepared and augmented a batch at a time on the device.

Shapes: N images, H x W pixels, C channels.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Augment = Literal["flip_crop", "none"]
LARGEST_BOX = 0.3  # of an image's area


@dataclass(frozen=True)
class TrainingData:
    """`images`: uint8 N x H x W x C at the network's size, or float32 N x C x H x W used as it is.

    Batches are drawn where the images are (keep them on the device where they fit) and prepared on the
    device of the network: x / scale, then (x - mean) / std per channel. `labels`: int64 (N,) or None.
    """

    images: Tensor
    labels: Tensor | None = None
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    chosen: Tensor | None = None  # which of the images, as int64 (n,); None: all

    def __len__(self) -> int:
        return len(self.images if self.chosen is None else self.chosen)

    def subset(self, rows: Tensor) -> "TrainingData":
        """Only these rows; the images stay where they are."""
        return replace(self, chosen=rows if self.chosen is None else self.chosen[rows])

    def batch(
        self,
        rows: Tensor,
        device: torch.device,
        augment: Augment = "none",
        generator: Generator | None = None,
        boxes: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Prepared images n x C x H x W float32 and labels (n,) of these rows; `boxes`: of each other."""
        rows = rows if self.chosen is None else self.chosen[rows]
        images = self.images[rows.to(self.images.device)].to(device)
        if images.dtype == torch.uint8:
            images = images.permute(0, 3, 1, 2)
        if augment == "flip_crop":
            images = flip_crop(images, generator)
        if boxes:
            images = paste_boxes(images, generator)
        labels = None if self.labels is None else self.labels[rows.to(self.labels.device)].to(device)
        return self.prepare(images), labels

    def prepare(self, images_NCHW: Tensor) -> Tensor:
        """Pixels to the network's input; float images are the network's input already."""
        if images_NCHW.dtype != torch.uint8:
            return images_NCHW
        mean = torch.tensor(self.mean, device=images_NCHW.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images_NCHW.device).view(1, -1, 1, 1)
        return ((images_NCHW.float() / self.scale - mean) / std).contiguous()


def flip_crop(images_NCHW: Tensor, generator: Generator | None) -> Tensor:
    """Each image mirrored with probability 1/2 and cropped at random from a frame of black, an eighth wide.

    4 pixels at 32 x 32, as is usual on CIFAR. Draws come from a CPU generator, so they are the same on
    every device.
    """
    n, _, height, width = images_NCHW.shape
    device = images_NCHW.device
    frames = (height // 8, width // 8)
    top = torch.randint(0, 2 * frames[0] + 1, (n, 1), generator=generator).to(device)
    left = torch.randint(0, 2 * frames[1] + 1, (n, 1), generator=generator).to(device)
    mirrored = torch.rand(n, 1, generator=generator).to(device) < 0.5
    columns = torch.arange(width, device=device)[None]
    rows_NH = top + torch.arange(height, device=device)[None]
    columns_NW = left + torch.where(mirrored, width - 1 - columns, columns)
    framed = F.pad(images_NCHW, (frames[1], frames[1], frames[0], frames[0]))
    picked = framed[
        torch.arange(n, device=device)[:, None, None], :, rows_NH[:, :, None], columns_NW[:, None]
    ]
    return picked.permute(0, 3, 1, 2)


def paste_boxes(images_NCHW: Tensor, generator: Generator | None) -> Tensor:
    """In each image a box of another one of the batch, at the place where it was there.

    Its area is anything up to 0.3 of the image's, its sides are at most 2 : 1. CutMix (Yun et al. 2019,
    arXiv 1905.04899) without labels: the original says what it sees. Draws come from a CPU generator.
    """
    n, _, height, width = images_NCHW.shape
    area, aspect, y, x = torch.rand(4, n, 1, generator=generator)
    area, aspect = LARGEST_BOX * area, torch.exp((2 * aspect - 1) * math.log(2))
    rows = _between(height, (area * aspect).sqrt(), y)
    columns = _between(width, (area / aspect).sqrt(), x)
    inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(images_NCHW.device)
    others = torch.randperm(n, generator=generator).to(images_NCHW.device)
    return torch.where(inside, images_NCHW[others], images_NCHW)


def _between(size: int, share_N1: Tensor, at_N1: Tensor) -> Tensor:
    """Which of `size` pixels lie in a stretch of this share; `at` says where, from 0 (first) to 1 (last)."""
    length = (size * share_N1).round().clamp(max=size)
    first = (at_N1 * (size - length + 1)).floor()
    pixels = torch.arange(size)
    return (pixels >= first) & (pixels < first + length)
