"""What all pairs have in common: two linear maps without anything between them."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from basisconv.basis.random import Drawn, random_basis
from basisconv.forms import FORMS as FORMS
from basisconv.forms import Form as Form


class Factorized(nn.Module, ABC):
    """Two layers that stand for one: ``forward(x) = second(first(x))``.

    Only `second` carries a bias, so that zero padding before either stays exact.
    """

    freezes_first: ClassVar[bool]  # whether training "mixing" leaves `first` as it is
    drawn: Drawn | None = None  # where a random first factor came from

    @property
    @abstractmethod
    def form(self) -> Form: ...

    @property
    @abstractmethod
    def rank(self) -> int:
        """Filters between the two layers, per group."""

    @property
    @abstractmethod
    def first(self) -> nn.Conv2d | nn.Linear: ...

    @property
    @abstractmethod
    def second(self) -> nn.Conv2d | nn.Linear: ...

    @abstractmethod
    def to_dense(self) -> nn.Conv2d | nn.Linear:
        """The one layer that computes the same (exactly, up to rounding in float64)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name, by which layers may be called
        y: Tensor = self.second(self.first(input))
        return y

    def draw_(self, drawn: Drawn) -> Self:
        """Random orthonormal filters as the first factor, fixed (see basis/random.py)."""
        assign(self.first.weight, self._random(drawn))
        self.first.weight.requires_grad_(False)
        self.drawn = drawn
        return self

    @property
    def is_as_drawn(self) -> bool:
        """Whether the seed still tells the first factor to the bit."""
        if self.drawn is None:
            return False
        weight = self.first.weight.detach().cpu()
        return torch.equal(weight, self._random(self.drawn).reshape(weight.shape).to(weight.dtype))

    def _random(self, drawn: Drawn) -> Tensor:
        groups = getattr(self.first, "groups", 1)
        return random_basis(drawn, groups, self.rank, self.first.weight[0].numel())


@torch.no_grad()
def assign(parameter: Tensor | None, value: Tensor | None) -> None:
    """Copy a float64 result into a layer's own dtype and device."""
    if parameter is not None and value is not None:
        parameter.copy_(value.reshape(parameter.shape))
