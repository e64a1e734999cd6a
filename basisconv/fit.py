"""One layer's replacement, fitted to what it should answer.

Shapes: G groups, O out channels, I what a response sees (in channels times kernel area), R rank; per group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from basisconv.basis.activations import Metric, basis_factors, lifted, regression
from basisconv.calibrate import Covariances
from basisconv.cost import Site
from basisconv.errors import MalformedWeights
from basisconv.nn import BasisConv2d, BasisLinear, Factorized, Form, SeparableConv2d
from basisconv.nn.factorized import assign
from basisconv.options import separation
from basisconv.patches import seen_weight, to_patches


@dataclass(frozen=True)
class Fitted:
    """A pair in the layer's place; `error` is the share of the wanted response's variance it misses."""

    layer: Factorized
    error: float


def fit_pair(site: Site, seen: Covariances, metrics: tuple[Metric, ...], form: Form, rank: int) -> Fitted:
    """Reduced-rank regression of the wanted responses on the inputs seen, as a pair with a bias.

    Raises MalformedWeights naming the layer where numbers are not finite or a decomposition fails.
    """
    _check_finite(site, seen)
    try:
        if form == "basis":
            return _fit_basis(site.target, seen, metrics, rank)
        return _fit_separable(site, seen, metrics[0], form, rank)
    except LinAlgError as error:
        raise MalformedWeights(site.layer.name, f"its decomposition failed: {error}") from error


def refit_(site: Site, seen: Covariances, norm: nn.BatchNorm2d | None) -> None:
    """Give a layer that stays dense the regressed weights; the constant goes to its bias or its batch norm.

    Without either there is nowhere to put the constant and the layer stays as it is.
    """
    _check_finite(site, seen)
    layer = site.target
    mean = None if norm is None else norm.running_mean
    if layer.bias is None and mean is None:
        return
    target_GOI = regressed(layer, seen)
    bias_O = _bias(target_GOI, seen)
    assign(layer.weight, to_patches(layer, target_GOI))
    if layer.bias is not None:
        assign(layer.bias, bias_O)
    elif mean is not None:
        mean -= bias_O.to(mean)


def regressed(layer: nn.Conv2d | nn.Linear, seen: Covariances) -> Tensor:
    """The best full-rank weights (G, O, I): the wanted responses regressed on the inputs seen."""
    parts = zip(seen_weight(layer), seen.gram, seen.cross, strict=True)
    return torch.stack([regression(weight, gram, cross) for weight, gram, cross in parts])


def _fit_basis(
    layer: nn.Conv2d | nn.Linear, seen: Covariances, metrics: tuple[Metric, ...], rank: int
) -> Fitted:
    factors = []
    for weight, gram, metric in zip(regressed(layer, seen), seen.gram, metrics, strict=True):
        factors.append(basis_factors(weight, lifted(gram), metric, rank))
    basis, mixing = (torch.stack(parts) for parts in zip(*factors, strict=True))
    product, filters = mixing @ basis, to_patches(layer, basis)
    bias = _bias(product, seen)
    if isinstance(layer, nn.Linear):
        return Fitted(BasisLinear.from_factors(layer, filters, mixing, bias), missed(product, seen))
    return Fitted(BasisConv2d.from_factors(layer, filters, mixing, bias), missed(product, seen))


def _fit_separable(site: Site, seen: Covariances, metric: Metric, form: Form, rank: int) -> Fitted:
    assert isinstance(site.module, nn.Conv2d)
    assert form != "basis"
    axis = 0 if form == "kx1_1xk" else 1
    target = regressed(site.module, seen)[0]
    problem = separation(site, target, seen.gram[0], metric)
    taps, mixing = (problem if axis == 0 else problem.turned()).factors(rank)
    product_OIAB = torch.einsum("orb,ria->oiab", mixing, taps)
    product = (product_OIAB if axis == 0 else product_OIAB.mT).reshape(1, len(mixing), -1)
    pair = SeparableConv2d.from_factors(site.module, form, taps, mixing, _bias(product, seen))
    return Fitted(pair, missed(product, seen))


def _bias(weight_GOI: Tensor, seen: Covariances) -> Tensor:
    """E[t] - R~ E[x], (G * O,)"""
    return (seen.mean_t - (weight_GOI @ seen.mean_x[..., None]).squeeze(-1)).flatten()


def missed(weight_GOI: Tensor, seen: Covariances) -> float:
    """Var(t - R~ x) / Var(t): what the layer's responses lose, the bias being fitted."""
    total = float(seen.variance_t.sum())
    explained = 2 * (weight_GOI * seen.cross).sum() - ((weight_GOI @ seen.gram) * weight_GOI).sum()
    return max(0.0, (total - float(explained)) / total) if total > 0 else 0.0


def _check_finite(site: Site, seen: Covariances) -> None:
    if not seen.finite:
        raise MalformedWeights(site.layer.name, "its inputs or responses on the images are NaN or infinite")
