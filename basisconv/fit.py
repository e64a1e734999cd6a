"""One layer's replacement, fitted to what it should answer.

Shapes: G groups, O out channels, I in channels times kernel area, both per group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from basisconv.basis.activations import Metric, basis_factors, regression
from basisconv.basis.weights import grouped_weight
from basisconv.calibrate import Moments
from basisconv.cost import Site
from basisconv.errors import MalformedWeights
from basisconv.nn import BasisConv2d, BasisLinear, Factorized, Form, SeparableConv2d
from basisconv.nn.factorized import assign
from basisconv.options import separation


@dataclass(frozen=True)
class Fitted:
    """A pair in the layer's place; `error` is the share of the wanted response's variance it misses."""

    layer: Factorized
    error: float


def fit_pair(site: Site, moments: Moments, metrics: tuple[Metric, ...], form: Form, rank: int) -> Fitted:
    """Reduced-rank regression of the wanted responses on the inputs seen, as a pair with a bias.

    Raises MalformedWeights naming the layer where the decomposition breaks down.
    """
    try:
        target_GOI = regressed(site, moments)
        if form == "basis":
            pair = _fit_basis(site.target, target_GOI, moments, metrics, rank)
        else:
            pair = _fit_separable(site, target_GOI, moments, metrics[0], form, rank)
    except LinAlgError as error:
        raise MalformedWeights(site.layer.name, f"its decomposition failed: {error}") from error
    dense_GOI = grouped_weight(pair.to_dense())
    assign(pair.second.bias, _bias(dense_GOI, moments).flatten())
    return Fitted(pair, missed(dense_GOI, moments))


def refit_(
    layer: nn.Conv2d | nn.Linear, moments: Moments, target_GOI: Tensor, norm: nn.BatchNorm2d | None
) -> None:
    """Give a layer that stays dense the regressed weights; the constant goes to its bias or its batch norm.

    Without either there is nowhere to put the constant and the layer stays as it is.
    """
    if layer.bias is None and (norm is None or norm.running_mean is None):
        return
    bias_O = _bias(target_GOI, moments).flatten()
    assign(layer.weight, target_GOI)
    if layer.bias is not None:
        assign(layer.bias, bias_O)
    elif norm is not None and norm.running_mean is not None:
        with torch.no_grad():
            norm.running_mean -= bias_O.to(norm.running_mean)


def regressed(site: Site, moments: Moments) -> Tensor:
    """The best full-rank weights per group (G, O, I): the wanted responses regressed on the inputs seen."""
    parts = zip(grouped_weight(site.target), moments.gram, moments.cross, strict=True)
    return torch.stack([regression(weight, gram, cross) for weight, gram, cross in parts])


def _fit_basis(
    layer: nn.Conv2d | nn.Linear, target_GOI: Tensor, moments: Moments, metrics: tuple[Metric, ...], rank: int
) -> Factorized:
    factors = []
    for weight, gram, metric in zip(target_GOI, moments.gram, metrics, strict=True):
        scaled = metric.root @ weight
        factors.append(basis_factors(weight, scaled @ gram @ scaled.T, metric, rank))
    basis, mixing = (torch.stack(parts) for parts in zip(*factors, strict=True))
    bias = torch.zeros(len(layer.weight), dtype=torch.float64)
    if isinstance(layer, nn.Linear):
        return BasisLinear.from_factors(layer, basis, mixing, bias)
    return BasisConv2d.from_factors(layer, basis, mixing, bias)


def _fit_separable(
    site: Site, target_GOI: Tensor, moments: Moments, metric: Metric, form: Form, rank: int
) -> SeparableConv2d:
    assert isinstance(site.module, nn.Conv2d)
    assert form != "basis"
    axis = 0 if form == "kx1_1xk" else 1
    taps, mixing = separation(site, target_GOI[0], moments.gram[0], metric, axis).factors(rank)
    bias = torch.zeros(len(mixing), dtype=torch.float64)
    return SeparableConv2d.from_factors(site.module, form, taps, mixing, bias)


def _bias(weight_GOI: Tensor, moments: Moments) -> Tensor:
    """E[t] - R~ E[x], (G, O)"""
    return moments.mean_t - (weight_GOI @ moments.mean_x[..., None]).squeeze(-1)


def missed(weight_GOI: Tensor, moments: Moments) -> float:
    """Var(t - R~ x) / Var(t), in [0, ...): what the layer's responses lose, bias fitted."""
    total = float(moments.variance_t.sum())
    explained = 2 * (weight_GOI * moments.cross).sum() - ((weight_GOI @ moments.gram) * weight_GOI).sum()
    return max(0.0, (total - float(explained)) / total) if total > 0 else 0.0
