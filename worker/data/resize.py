"""Bringing one image to a network's size and channels, as Pillow and torchvision's transforms do it."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.data.decode import Pixels, as_image, as_pixels
from worker.data.spec import InputSpec

_FILTERS: Final = {
    "bilinear": Image.Resampling.BILINEAR,  # Pillow widens its filters when shrinking: antialiased
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def needs_work(image: list[int] | None, spec: InputSpec) -> bool:
    """Whether images of this H, W, C differ from what the network takes."""
    if image is None or spec.resize is not None or spec.crop is not None:
        return True
    return image != [spec.height, spec.width, spec.channels]


def fit(pixels: Pixels, spec: InputSpec) -> Pixels:
    """One H×W×C image at the network's size: shorter side, centre crop, then whatever still differs."""
    return _size(_channels(pixels, spec.channels), spec)


def _channels(pixels: Pixels, channels: int) -> Pixels:
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 1:
        return as_pixels(as_image(pixels).convert("L"))  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    return np.repeat(pixels, channels, axis=-1)


def _size(pixels: Pixels, spec: InputSpec) -> Pixels:
    height, width, channels = pixels.shape
    if channels not in (1, 3):  # Pillow has no such images: every channel by itself
        planes = [_size(pixels[..., c : c + 1], spec) for c in range(channels)]
        return np.concatenate(planes, axis=-1)
    method = _FILTERS[spec.interpolation]
    if spec.resize is not None:
        height, width = _shorter_side(height, width, spec.resize)
        pixels = _resized(pixels, height, width, method)
    if spec.crop is not None:
        pixels = _centre(pixels, *spec.crop)
    return _resized(pixels, spec.height, spec.width, method)


def _shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """torchvision's rule: the longer side is cut, not rounded, to a whole pixel."""
    if height <= width:
        return side, max(int(side * width / height), 1)
    return max(int(side * height / width), 1), side


def _resized(pixels: Pixels, height: int, width: int, method: Any) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    return as_pixels(as_image(pixels).resize((width, height), method))


def _centre(pixels: Pixels, height: int, width: int) -> Pixels:
    """torchvision's centre crop: an image that is too small gets a black border."""
    lack = [max(want - have, 0) for want, have in zip((height, width), pixels.shape[:2], strict=True)]
    border: list[tuple[int, int]] = [(side // 2, (side + 1) // 2) for side in lack]
    padded: npt.NDArray[np.uint8] = np.pad(pixels, [*border, (0, 0)]) if any(lack) else pixels
    top = round((padded.shape[0] - height) / 2.0)
    left = round((padded.shape[1] - width) / 2.0)
    return padded[top : top + height, left : left + width]
