"""Images that nobody took: noise with the spectrum of photographs, in a network's own units.

Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

EXPONENT = 1.3  # amplitudes fall as 1/f^1.3; photographs are at 1 to 1.5 (Field 1987)
SHARED = 0.9  # of each channel's variance that all channels share: photographs are mostly grey
# Photographs of all kinds, in shares of the range from black to white (ImageNet, CIFAR).
_MEAN, _STD = 0.45, 0.25
_WIDEST = 0.4  # a larger std is no measured one: 0.5 and 1 only move the range


@dataclass(frozen=True)
class Pixels:
    """What a network's input takes, per channel, in its own units (after normalisation)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def normalised(cls, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """For bytes 0 to 255 that become (byte / scale - mean) / std.

        A mean and std that look measured (inside the range, std at most 0.4 of it) are taken for those of
        the network's images; others, such as 0.5 and 0.5, for a mere change of range.
        """
        white = 255 / scale
        measured = all(0 < m < white and s <= _WIDEST * white for m, s in zip(mean, std, strict=True))
        pairs = list(zip(mean, std, strict=True))
        return cls(
            mean=tuple(0.0 if measured else (_MEAN * white - m) / s for m, s in pairs),
            std=tuple(1.0 if measured else _STD * white / s for _, s in pairs),
            low=tuple((0.0 - m) / s for m, s in pairs),
            high=tuple((white - m) / s for m, s in pairs),
        )

    @classmethod
    def unknown(cls, channels: int) -> Self:
        """Nothing is known of the input: mean 0, std 1, no bounds."""
        ones, far = (1.0,) * channels, (float("inf"),) * channels
        return cls((0.0,) * channels, ones, tuple(-f for f in far), far)

    def moved(self, x: Tensor, change: Tensor | float = 0.0) -> Tensor:
        """x + change, `change` in standard deviations, within the bounds."""
        moved = x + change * _as(self.std, x)
        return torch.minimum(torch.maximum(moved, _as(self.low, x)), _as(self.high, x))


def natural_noise(count: int, shape: Sequence[int], pixels: Pixels, seed: int) -> Tensor:
    """N x C x H x W float32 on the CPU: Gaussian noise whose amplitudes fall as 1/f^1.3, within the bounds.

    Each is a quarter of a periodic image, so that opposite edges do not match. Networks learn usable features
    from such noise (Baradad et al. 2021, arXiv 2106.05963); here it is enough to measure responses on.
    """
    generator = Generator().manual_seed(seed)
    x = torch.stack([_noise(tuple(shape), generator) for _ in range(count)])
    x = x / x.std().clamp_min(1e-12)
    return pixels.moved(_as(pixels.mean, x).expand_as(x), x)


def _noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    channels, height, width = shape
    white = torch.randn(1, channels + 1, 2 * height, 2 * width, generator=generator)
    own, common = coloured(white, EXPONENT)[0, :, :height, :width].split([channels, 1])
    return SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own


def coloured(white_NCHW: Tensor, exponent: float) -> Tensor:
    """White noise with its amplitudes scaled by 1/f^exponent, at the same mean square; linear."""
    height, width = white_NCHW.shape[-2:]
    down, along = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    frequency = (down[:, None].square() + along[None].square()).sqrt()
    frequency[0, 0] = 1 / max(height, width)  # the mean: as the lowest wave
    gain = frequency.pow(-exponent)
    gain = (gain / gain.square().mean().sqrt()).to(white_NCHW)
    return torch.fft.irfft2(torch.fft.rfft2(white_NCHW) * gain, s=(height, width))


def _as(values: tuple[float, ...], like_NCHW: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like_NCHW.dtype, device=like_NCHW.device).view(1, -1, 1, 1)
