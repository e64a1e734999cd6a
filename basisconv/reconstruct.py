"""A window's layers together, refined to give the original's values behind its activations.

A layer's own fit (fit.py) knows neither what the activation behind it forgives nor its neighbours. Here the
layers between two single values of the network (windows.py) are adjusted together on the calibration
images, without labels: minimise E|S(v^ - v)|^2, v the original's value behind the window, v^ the compressed
network's, S the root of the outputs' second moments there. Block reconstruction of rounded networks is the
relative (Li et al. 2021, BRECQ, arXiv 2102.05426).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from basisconv.nn.basis import BasisConv2d, BasisLinear, orthonormalise_
from basisconv.observe import Passage
from basisconv.windows import channels_last

STEPS = 100
LEAST_STEPS = 20  # with less work than that allowed, nothing is gained
STEP_IMAGES = 64
PASSES = 8  # over the calibration images at most: with few of them the closed form is the better estimate
RATE = 0.03  # of a weight's size (root mean square of its tensor) a step: Adam's steps know no scale
WARM_UP = 10
HELD_BACK = 8  # one passage in so many judges
WORK = {"cpu": 1e12, "cuda": 1e14}  # multiply-accumulates for a whole network, one or two minutes
Error = Callable[[Passage], Tensor]  # E|S(v^ - v)|^2 per image of the passage, as the layers are


@dataclass(frozen=True)
class Effort:
    """How many steps of at least STEP_IMAGES images each window gets."""

    steps: int

    @classmethod
    def affordable(cls, macs: int, device: torch.device) -> "Effort | None":
        """For a network of `macs` per image: forward, and backward twice as dear. None: not worth it."""
        steps = int(WORK.get(device.type, WORK["cpu"]) / (3 * STEP_IMAGES * max(macs, 1)))
        return cls(min(STEPS, steps)) if steps >= LEAST_STEPS else None


def reconstruct_(
    layers: Sequence[nn.Module],
    passages: Sequence[Passage],
    cross: Callable[[Passage], Tensor],
    root_CC: Tensor,
    effort: Effort,
    generator: Generator,
) -> float:
    """Adjust the layers' weights in place; kept only where the passages held back come out closer.

    Fewer than 160 images to learn from are too few, and nothing changes.

    `cross(passage)`: the value behind the window with the layers as they are. `root_CC`: S over the value's
    channels. Returns the error on the passages held back as a share of what it was (1: nothing was gained).
    """
    learning, judging = _split(passages)
    steps = min(effort.steps, PASSES * sum(p.images for p in learning) // STEP_IMAGES)
    if steps < LEAST_STEPS:
        return 1.0
    weights = [p for layer in layers for p in layer.parameters() if p.dim() >= 2]
    start = [p.detach().clone() for p in weights]
    error = _error(cross, root_CC.to(learning[0].target))
    before = _mean(error, judging)
    with _learnable(weights):
        _descend(weights, learning, error, steps, generator)
    after = _mean(error, judging)
    if not after < before:
        with torch.no_grad():
            for p, value in zip(weights, start, strict=True):
                p.copy_(value)
        return 1.0
    for layer in layers:
        if isinstance(layer, BasisConv2d | BasisLinear):
            orthonormalise_(layer)
    return after / before


def _split(passages: Sequence[Passage]) -> tuple[list[Passage], list[Passage]]:
    held = max(1, len(passages) // HELD_BACK)
    return list(passages[:-held]), list(passages[-held:])


@contextmanager
def _learnable(weights: list[nn.Parameter]) -> Iterator[None]:
    """All of them require gradients inside, and afterwards those that did."""
    needed = [p.requires_grad for p in weights]
    for p in weights:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p, before in zip(weights, needed, strict=True):
            p.requires_grad_(before)


def _descend(
    weights: list[nn.Parameter],
    learning: list[Passage],
    error: Error,
    steps: int,
    generator: Generator,
) -> None:
    rates = [RATE * max(float(p.detach().square().mean().sqrt()), 1e-12) for p in weights]
    adam = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in zip(weights, rates, strict=True)])
    draws = _draws(learning, generator)
    for step in range(steps):
        for group, rate in zip(adam.param_groups, rates, strict=True):
            group["lr"] = rate * _schedule(step, steps)
        some: list[Passage] = []
        while sum(p.images for p in some) < STEP_IMAGES:
            some.append(next(draws))
        adam.zero_grad(set_to_none=True)
        for passage in some:
            with torch.enable_grad():
                loss = error(passage) / len(some)
            for p, grad in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if grad is not None:
                    p.grad = grad if p.grad is None else p.grad + grad
        adam.step()


def _draws(learning: list[Passage], generator: Generator) -> Iterator[Passage]:
    while True:
        for i in torch.randperm(len(learning), generator=generator).tolist():
            yield learning[i]


def _schedule(step: int, steps: int) -> float:
    warm = min(WARM_UP, steps)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _error(cross: Callable[[Passage], Tensor], root_CC: Tensor) -> Error:
    """Channels are the second axis of maps, the last of anything else."""

    def error(passage: Passage) -> Tensor:
        wrong = cross(passage) - passage.target
        return (channels_last(wrong) @ root_CC.T).square().sum() / passage.images

    return error


@torch.no_grad()
def _mean(error: Error, passages: list[Passage]) -> float:
    return float(torch.stack([error(passage) for passage in passages]).mean())
