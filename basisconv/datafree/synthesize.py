"""Calibration images from the network alone: noise, moved until the batch norms see what they remember.

Shapes: N images, C channels, H x W pixels.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from basisconv.config import Progress
from basisconv.cost import count, evaluating
from basisconv.datafree.config import SynthesisConfig, Synthetic
from basisconv.datafree.noise import Pixels, coloured, natural_noise
from basisconv.datafree.norms import Sums, mismatch, observe, together

BATCH = 64  # images moved at a time, where memory allows
BATCH_BYTES = 1 << 29  # of what a batch keeps for its backward pass
SET_BYTES = 1 << 28  # of the images; their coordinates and Adam's moments take four times as much
FEWEST_STEPS, MOST_STEPS = 10, 24
FEWEST_IMAGES = 32
NOISE = 2  # times as many images where there is nothing to fit them to
_PASSES = 3  # a step of one image: forward, and twice as much backward
_WAVES = 1.0  # the images move in waves scaled by 1/f: half the steps of moving single pixels


def synthesize(
    module: nn.Module, example: Tensor, pixels: Pixels | None = None, config: SynthesisConfig | None = None
) -> Iterator[Progress | Synthetic]:
    """Images for decompose_ where there are none; the last item is the Synthetic. `module` is not changed.

    `example`: an input batch N x C x H x W. `pixels`: what values the input takes. Start: natural_noise.
    Then Adam moves the images until the mean and variance of every batch norm's inputs, over the whole set,
    are those that the norm remembers of its training images (norms.py, mismatch). One batch at a time is
    moved and the others' sums are kept: memory does not grow with the set, and single images may be as
    unlike as real ones are. Networks without batch norms get the noise itself. The same seed gives the same
    images on the CPU.
    """
    config = config or SynthesisConfig()
    pixels = pixels or Pixels.unknown(example.shape[1])
    with evaluating(module):
        found = len(observe(module, example))
    total, steps = _affordable(module, example, config, found)
    start = natural_noise(total, example.shape[1:], pixels, config.seed).to(example.device)
    if not steps:
        yield _split(start, config, 0, 0, (0.0, 0.0))
        return
    batches = [_Batch(x, pixels, config) for x in start.split(_batch_size(module, example, config))]
    values: list[float] = []
    for value in _move(module, batches, steps):
        values.append(value)
        yield Progress("calibrate", len(values) / (steps + 2), "Making images from the batch norms' memory")
    moved = torch.cat([batch.images().detach() for batch in batches])
    if not values[-1] < values[0]:  # also where it is not finite
        moved, steps, values = start, 0, values[:1]
    yield _split(moved, config, found, steps, (values[0], values[-1]))


def _affordable(module: nn.Module, example: Tensor, config: SynthesisConfig, found: int) -> tuple[int, int]:
    """Images, those held back among them, and steps, for a network with `found` batch norms."""
    wanted, steps = config.images + config.held_back, 0
    if not found:
        wanted *= NOISE  # it costs nothing to make
    else:
        passes = max(config.least_passes, config.work_macs / max(1, count(module, example).macs)) / _PASSES
        steps = int(min(MOST_STEPS, max(FEWEST_STEPS, passes // wanted)))
        wanted = min(wanted, max(FEWEST_IMAGES, int(passes / steps)))
    images, size = max(2, min(wanted, SET_BYTES // (4 * example[0].numel()))), config.batch_size or 1
    return math.ceil(images / size) * size, steps


def _batch_size(module: nn.Module, example: Tensor, config: SynthesisConfig) -> int:
    """As many images as fit into BATCH_BYTES, by what a forward pass keeps for its backward pass."""
    if config.batch_size is not None:
        return config.batch_size
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with evaluating(module), torch.enable_grad():
        x = example.detach().clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            observe(module, x)
    return max(1, min(BATCH, BATCH_BYTES * len(example) // max(1, sum(kept.values()))))


class _Batch:
    """Images on their way: where they started, how far each wave has moved, what the norms saw of them."""

    def __init__(self, start: Tensor, pixels: Pixels, config: SynthesisConfig) -> None:
        self._start, self._pixels, self._rate = start, pixels, config.learning_rate
        self._waves = torch.zeros_like(start, requires_grad=True)
        self._adam = torch.optim.Adam([self._waves], betas=(0.9, 0.99))
        self.seen: list[Sums] = []

    def images(self) -> Tensor:
        return self._pixels.moved(self._start, coloured(self._waves, _WAVES))

    def step(self, loss: Tensor, left: float) -> bool:
        """`left`: the share of the steps that is still to come. False where the loss does not follow x."""
        if not loss.requires_grad:
            return False
        (self._waves.grad,) = torch.autograd.grad(loss, [self._waves], allow_unused=True)
        if self._waves.grad is None:
            return False
        self._adam.param_groups[0]["lr"] = self._rate * math.sqrt(left)
        self._adam.step()
        return True


def _move(module: nn.Module, batches: list[_Batch], steps: int) -> Iterator[float]:
    """The whole set's mismatch: at the start, in every round, and at the end."""
    whole = _look(module, batches)
    yield float(mismatch(whole))
    for step in range(steps):
        for batch in batches:
            with evaluating(module), torch.enable_grad():
                mine = observe(module, batch.images())
                new = [all_ - old + now for all_, old, now in zip(whole, batch.seen, mine, strict=True)]
                loss = mismatch(new)
                if not batch.step(loss, 1 - step / steps):  # the network cuts its own gradients off
                    return
            batch.seen, whole = _detached(mine), _detached(new)
        yield float(loss.detach())
    yield float(mismatch(_look(module, batches)))


def _detached(sums: list[Sums]) -> list[Sums]:
    return [one.detach() for one in sums]


def _look(module: nn.Module, batches: list[_Batch]) -> list[Sums]:
    with evaluating(module):
        for batch in batches:
            batch.seen = observe(module, batch.images())
    return together(batch.seen for batch in batches)


def _split(
    x: Tensor, config: SynthesisConfig, found: int, steps: int, values: tuple[float, float]
) -> Synthetic:
    """Every n-th image is held back, so that all batches have a part in both."""
    every = max(2, round((config.images + config.held_back) / max(1, config.held_back)))
    back = torch.arange(len(x), device=x.device) % every == every - 1
    return Synthetic(x[~back], x[back], found, steps, values)
