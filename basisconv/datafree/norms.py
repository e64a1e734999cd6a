"""What a network's batch norms remember of their training images, and how far other images are from it.

Shapes: C channels of one batch norm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_FLOOR = 1e-3  # of a norm's mean variance: dead channels have none and would outweigh all others


@dataclass(frozen=True)
class Sums:
    """A batch norm's inputs less its running mean: how many per channel; (C,) float64 sums, also squared."""

    norm: _BatchNorm
    count: int
    total: Tensor
    square: Tensor

    def __add__(self, other: "Sums") -> "Sums":
        count = self.count + other.count
        return Sums(self.norm, count, self.total + other.total, self.square + other.square)

    def __sub__(self, other: "Sums") -> "Sums":
        count = self.count - other.count
        return Sums(self.norm, count, self.total - other.total, self.square - other.square)

    def detach(self) -> "Sums":
        return Sums(self.norm, self.count, self.total.detach(), self.square.detach())


def observe(module: nn.Module, x: Tensor) -> list[Sums]:
    """What the batch norms see of x, in the order of their calls; those without statistics are left out."""
    seen: list[Sums] = []

    def note(norm: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
        assert isinstance(norm, _BatchNorm)
        seen.append(_sums(norm, inputs[0]))

    handles = [norm.register_forward_hook(note) for norm in module.modules() if _keeps_statistics(norm)]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _keeps_statistics(child: nn.Module) -> bool:
    return isinstance(child, _BatchNorm) and child.running_mean is not None and child.running_var is not None


def _sums(norm: _BatchNorm, x: Tensor) -> Sums:
    assert norm.running_mean is not None
    rest = [axis for axis in range(x.dim()) if axis != 1]
    d = x - norm.running_mean.view(1, -1, *[1] * (x.dim() - 2))
    return Sums(norm, x.numel() // x.shape[1], d.sum(rest).double(), d.square().sum(rest).double())


def together(parts: Iterable[list[Sums]]) -> list[Sums]:
    """The sums of several batches as of one."""
    return [reduce(add, sums) for sums in zip(*parts, strict=True)]


def mismatch(seen: list[Sums]) -> Tensor:
    """Mean over norms and channels of (mean - running mean)^2 / v + (sqrt(var / v) - 1)^2.

    v is the running variance. It is the loss of ZeroQ (Cai et al. 2020, arXiv 2001.00281) and of
    DeepInversion (Yin et al. 2020, arXiv 1912.08795), in each channel's own units instead of absolute ones.
    """
    return torch.stack([_of_norm(sums) for sums in seen]).mean()


def _of_norm(sums: Sums) -> Tensor:
    assert sums.norm.running_var is not None
    wanted_C = sums.norm.running_var.double()
    wanted_C = wanted_C + _FLOOR * wanted_C.mean() + sums.norm.eps
    mean_C = sums.total / sums.count
    var_C = (sums.square / sums.count - mean_C.square()).clamp_min(1e-8 * wanted_C)
    return (mean_C.square() / wanted_C + ((var_C / wanted_C).sqrt() - 1).square()).mean()
