"""What a synthesis is asked for, and what it gives."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SynthesisConfig:
    """`images` to calibrate on and `held_back` to judge by, at most (of plain noise twice
    as many). `work_macs`: multiply-accumulates that
    may be spent on moving them; beyond it there are fewer steps, then fewer images; but as much as
    `least_passes` of one image, about what measuring its responses takes, may always be spent.
    `learning_rate`: Adam's, in standard deviations of the pixels. `batch_size`: the only one that the network
    takes, None for any."""

    images: int = 256
    held_back: int = 64
    work_macs: float = 1e12
    least_passes: int = 1024
    learning_rate: float = 0.1
    batch_size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Synthetic:
    """`calibration` and `held_back`: N x C x H x W on the example's device, of one set and one making.

    `norms`: batch norms that they were fitted to; `mismatch` to their statistics before and after `steps`.
    """

    calibration: Tensor
    held_back: Tensor
    norms: int
    steps: int
    mismatch: tuple[float, float]
