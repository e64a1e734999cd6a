"""One axis after the other: a column of taps, then a row, or the reverse.

Shapes: O out channels, I in channels, A taps along the first axis, B along the second, R rank.
"""

from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from basisconv.basis.separable import separate
from basisconv.errors import InvalidRequest
from basisconv.nn.factorized import Factorized, Form, assign

Pair = tuple[int, int]
SeparableForm = Literal["kx1_1xk", "1xk_kx1"]


def _only(value: Pair, axis: int, rest: int) -> Pair:
    """`value` along one axis, `rest` along the other."""
    return (value[0], rest) if axis == 0 else (rest, value[1])


class SeparableConv2d(Factorized):
    """An ungrouped convolution as k x 1 then 1 x k (form ``kx1_1xk``), or 1 x k then k x 1 (``1xk_kx1``).

    Each factor takes its own axis' stride, padding and dilation. Multiply-accumulates per output position
    at stride 1: R(A*I + B*O); with stride s along the second axis the first factor runs on s times as
    many positions.
    """

    freezes_first = False  # both factors see space: the paper's frozen basis has no counterpart here

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        self.taps = first
        self.mixing = second

    @classmethod
    def like(cls, conv: nn.Conv2d, form: SeparableForm, rank: int, bias: bool) -> Self:
        """The structure for `conv`, weights not yet meaningful.

        Raises InvalidRequest for a grouped layer or a kernel with a side of 1.
        """
        if conv.groups != 1 or 1 in conv.kernel_size:
            raise InvalidRequest(
                f"separable forms need groups = 1 and a kernel wider than 1 both ways, "
                f"got groups = {conv.groups} and kernel {tuple(conv.kernel_size)}"
            )
        axis = 0 if form == "kx1_1xk" else 1
        first = cls._axis_conv(conv, axis, conv.in_channels, rank, bias=False)
        second = cls._axis_conv(conv, 1 - axis, rank, conv.out_channels, bias=bias)
        return cls(first, second)

    @staticmethod
    def _axis_conv(conv: nn.Conv2d, axis: int, inputs: int, outputs: int, bias: bool) -> nn.Conv2d:
        padding = conv.padding if isinstance(conv.padding, str) else _only(cast(Pair, conv.padding), axis, 0)
        return nn.utils.skip_init(
            nn.Conv2d,
            inputs,
            outputs,
            _only(cast(Pair, conv.kernel_size), axis, 1),
            _only(cast(Pair, conv.stride), axis, 1),
            padding,
            _only(cast(Pair, conv.dilation), axis, 1),
            bias=bias,
            padding_mode=conv.padding_mode,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )

    @classmethod
    def from_factors(
        cls, conv: nn.Conv2d, form: SeparableForm, taps_RIA: Tensor, mixing_ORB: Tensor, bias_O: Tensor | None
    ) -> Self:
        """From float64 factors: taps (R, I, A) along the first axis, mixing (O, R, B) along the second."""
        pair = cls.like(conv, form, taps_RIA.shape[0], bias_O is not None)
        assign(pair.taps.weight, taps_RIA)
        assign(pair.mixing.weight, mixing_ORB)
        assign(pair.mixing.bias, bias_O)
        return pair

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, rank: int, form: SeparableForm = "kx1_1xk") -> Self:
        """The closest separable pair in the Frobenius norm; exact at rank min(I*A, O*B)."""
        weight_OIAB = conv.weight.detach().double()
        taps, mixing = separate(weight_OIAB if form == "kx1_1xk" else weight_OIAB.mT, rank)
        return cls.from_factors(conv, form, taps, mixing, conv.bias)

    @property
    def form(self) -> Form:
        return "kx1_1xk" if self._axis == 0 else "1xk_kx1"

    @property
    def _axis(self) -> int:
        return 0 if self.taps.kernel_size[1] == 1 else 1

    @property
    def _outer(self) -> str:
        return "orxw,rihy->oihw" if self._axis == 0 else "orhx,riyw->oihw"

    @property
    def rank(self) -> int:
        return self.taps.out_channels

    @property
    def first(self) -> nn.Conv2d:
        return self.taps

    @property
    def second(self) -> nn.Conv2d:
        return self.mixing

    def to_dense(self) -> nn.Conv2d:
        first, second = (self.taps, self.mixing) if self._axis == 0 else (self.mixing, self.taps)
        padding = first.padding
        if not isinstance(padding, str):
            padding = (cast(Pair, first.padding)[0], cast(Pair, second.padding)[1])
        dense = nn.Conv2d(
            self.taps.in_channels,
            self.mixing.out_channels,
            (first.kernel_size[0], second.kernel_size[1]),
            (first.stride[0], second.stride[1]),
            padding,
            (first.dilation[0], second.dilation[1]),
            bias=self.mixing.bias is not None,
            padding_mode=self.taps.padding_mode,
            device=self.taps.weight.device,
            dtype=self.taps.weight.dtype,
        )
        taps, mixing = self.taps.weight.double(), self.mixing.weight.double()
        assign(dense.weight, torch.einsum(self._outer, mixing, taps))
        assign(dense.bias, self.mixing.bias)
        return dense.train(self.training)
