"""The paper's pair: basis filters of the layer's own geometry, then 1x1 mixing.

Shapes: O out channels, I in channels, K kernel area, R rank, G groups. One basis per group; O and I
of a factor are those of one group.
"""

from typing import Self

import torch
from torch import Tensor, nn

from basisconv.basis.weights import weight_factors
from basisconv.nn.factorized import Factorized, Form, assign


class BasisConv2d(Factorized):
    """A convolution as R basis filters and a 1x1 convolution (arXiv 1906.04509).

    `basis` has the layer's kernel, stride, padding, dilation and groups, and no bias; `mixing` is 1x1,
    has the same groups and takes the bias. Multiply-accumulates per output position: R(IK + O) per group.
    """

    freezes_first = True

    def __init__(self, basis: nn.Conv2d, mixing: nn.Conv2d) -> None:
        super().__init__()
        self.basis = basis
        self.mixing = mixing

    @classmethod
    def like(cls, conv: nn.Conv2d, rank: int, bias: bool) -> Self:
        """The structure for `conv` with `rank` filters per group, weights not yet meaningful."""
        ranks = rank * conv.groups
        device, dtype = conv.weight.device, conv.weight.dtype
        basis = nn.utils.skip_init(
            nn.Conv2d,
            conv.in_channels,
            ranks,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias=False,
            padding_mode=conv.padding_mode,
            device=device,
            dtype=dtype,
        )
        mixing = nn.utils.skip_init(
            nn.Conv2d, ranks, conv.out_channels, 1, groups=conv.groups, bias=bias, device=device, dtype=dtype
        )
        return cls(basis, mixing)

    @classmethod
    def from_factors(
        cls, conv: nn.Conv2d, basis_GRI: Tensor, mixing_GOR: Tensor, bias_O: Tensor | None
    ) -> Self:
        """From float64 factors: basis (G, R, I*K) and mixing (G, O, R); the geometry is `conv`'s."""
        pair = cls.like(conv, basis_GRI.shape[1], bias_O is not None)
        assign(pair.basis.weight, basis_GRI)
        assign(pair.mixing.weight, mixing_GOR)
        assign(pair.mixing.bias, bias_O)
        return pair

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, rank: int) -> Self:
        """The best rank-R basis of the filters themselves (Eckart-Young; exact at full rank).

        Raises InvalidRequest for a rank outside [1, min(O, I*K)], MalformedWeights for NaN or infinity.
        """
        basis, mixing = weight_factors(conv, rank)
        return cls.from_factors(conv, basis, mixing, conv.bias)

    @property
    def form(self) -> Form:
        return "basis"

    @property
    def rank(self) -> int:
        return self.basis.out_channels // self.basis.groups

    @property
    def first(self) -> nn.Conv2d:
        return self.basis

    @property
    def second(self) -> nn.Conv2d:
        return self.mixing

    def to_dense(self) -> nn.Conv2d:
        basis, groups = self.basis, self.basis.groups
        basis_GRI = basis.weight.double().reshape(groups, self.rank, -1)
        mixing_GOR = self.mixing.weight.double().reshape(groups, -1, self.rank)
        dense = nn.Conv2d(
            basis.in_channels,
            self.mixing.out_channels,
            basis.kernel_size,  # type: ignore[arg-type]
            basis.stride,  # type: ignore[arg-type]
            basis.padding,  # type: ignore[arg-type]
            basis.dilation,  # type: ignore[arg-type]
            groups,
            self.mixing.bias is not None,
            basis.padding_mode,
            device=basis.weight.device,
            dtype=basis.weight.dtype,
        )
        assign(dense.weight, torch.bmm(mixing_GOR, basis_GRI))
        assign(dense.bias, self.mixing.bias)
        return dense.train(self.training)


class BasisLinear(Factorized):
    """A linear layer as R directions (`basis`, no bias) and their `mixing`."""

    freezes_first = True

    def __init__(self, basis: nn.Linear, mixing: nn.Linear) -> None:
        super().__init__()
        self.basis = basis
        self.mixing = mixing

    @classmethod
    def like(cls, linear: nn.Linear, rank: int, bias: bool) -> Self:
        device, dtype = linear.weight.device, linear.weight.dtype
        basis = nn.utils.skip_init(
            nn.Linear, linear.in_features, rank, bias=False, device=device, dtype=dtype
        )
        mixing = nn.utils.skip_init(
            nn.Linear, rank, linear.out_features, bias=bias, device=device, dtype=dtype
        )
        return cls(basis, mixing)

    @classmethod
    def from_factors(
        cls, linear: nn.Linear, basis_GRI: Tensor, mixing_GOR: Tensor, bias_O: Tensor | None
    ) -> Self:
        """From float64 factors: basis (1, R, I) and mixing (1, O, R)."""
        pair = cls.like(linear, basis_GRI.shape[1], bias_O is not None)
        assign(pair.basis.weight, basis_GRI)
        assign(pair.mixing.weight, mixing_GOR)
        assign(pair.mixing.bias, bias_O)
        return pair

    @classmethod
    def from_linear(cls, linear: nn.Linear, rank: int) -> Self:
        """The best rank-R approximation of the weight matrix; errors as BasisConv2d.from_conv."""
        basis, mixing = weight_factors(linear, rank)
        return cls.from_factors(linear, basis, mixing, linear.bias)

    @property
    def form(self) -> Form:
        return "basis"

    @property
    def rank(self) -> int:
        return self.basis.out_features

    @property
    def first(self) -> nn.Linear:
        return self.basis

    @property
    def second(self) -> nn.Linear:
        return self.mixing

    def to_dense(self) -> nn.Linear:
        weight = self.mixing.weight.double() @ self.basis.weight.double()
        bias = self.mixing.bias is not None
        out_features, in_features = weight.shape
        dense = nn.Linear(
            in_features, out_features, bias, device=weight.device, dtype=self.basis.weight.dtype
        )
        assign(dense.weight, weight)
        assign(dense.bias, self.mixing.bias)
        return dense.train(self.training)


@torch.no_grad()
def orthonormalise_(pair: BasisConv2d | BasisLinear) -> None:
    """Make the basis filters of each group orthonormal again, as the paper's are; no output changes."""
    groups = pair.basis.groups if isinstance(pair, BasisConv2d) else 1
    basis_GIR = pair.basis.weight.double().reshape(groups, pair.rank, -1).mT
    mixing_GOR = pair.mixing.weight.double().reshape(groups, -1, pair.rank)
    rows_GIR, triangle_GRR = torch.linalg.qr(basis_GIR)
    assign(pair.basis.weight, rows_GIR.mT)
    assign(pair.mixing.weight, mixing_GOR @ triangle_GRR.mT)
