"""What could stand in each layer's place, what it costs and what harm it does."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from basisconv.basis.activations import Metric, response_spectrum
from basisconv.basis.separable import Separation
from basisconv.basis.weights import weight_energies
from basisconv.cost import Site, form_cost
from basisconv.nn import Form
from basisconv.patches import is_wide, seen_weight

Kept = Literal["dense"]


@dataclass(frozen=True)
class Option:
    """A form and rank for one layer. `harm` is the metric's squared error, or a share of the energy."""

    form: Form | Kept
    rank: int | None
    macs: int
    params: int
    harm: float


@dataclass(frozen=True)
class Statistics:
    """What the calibration images said of one layer: patch covariance and output metric of each group."""

    gram: Tensor
    metrics: tuple[Metric, ...]


def dense_option(site: Site) -> Option:
    return Option("dense", None, site.layer.macs, site.layer.params, 0.0)


def options(
    site: Site, statistics: Statistics | None, forms: Literal["basis", "auto"], multiple: int, bias: bool
) -> list[Option]:
    """Dense first, then every cheaper pair whose rank is a multiple of `multiple` (or the smallest there is).

    Without statistics the harm is the share of the filters' own energy that is lost.
    """
    tables: list[tuple[Form, Tensor]] = [("basis", _basis_harms(site, statistics))]
    if forms == "auto" and separable(site):
        tables += [("kx1_1xk", _separable_harms(site, statistics, 0))]
        tables += [("1xk_kx1", _separable_harms(site, statistics, 1))]
    found = [dense_option(site)]
    for form, harms in tables:
        ranks = range(multiple, len(harms), multiple)
        for rank in ranks or range(1, min(2, len(harms))):
            cost = form_cost(site, form, rank, bias)
            if cheaper(site, cost.macs, cost.params):
                found.append(Option(form, rank, cost.macs, cost.params, float(harms[rank])))
    return found


def cheaper(site: Site, macs: int, params: int) -> bool:
    """A pair must save operations and store no more, but for the bias that it may add."""
    return macs < site.layer.macs and params < site.layer.params + site.layer.out_channels


def separable(site: Site) -> bool:
    """A square-ish kernel of an ungrouped convolution: both axes have more than one tap."""
    narrow = 1 in site.layer.kernel_size or is_wide(site.target)
    return site.layer.kind == "conv2d" and site.layer.groups == 1 and not narrow


def spectra(site: Site, statistics: Statistics | None) -> Tensor:
    """Energies of the basis form's directions, largest first, summed over groups."""
    if statistics is None:
        return weight_energies(site.target)
    weight_GOI = seen_weight(site.target)
    parts = zip(weight_GOI, statistics.gram, statistics.metrics, strict=True)
    values = torch.stack([response_spectrum(w, g, m)[0] for w, g, m in parts]).sum(0)
    return values[: site.layer.max_rank]


def _basis_harms(site: Site, statistics: Statistics | None) -> Tensor:
    values = spectra(site, statistics)
    harms = torch.cat([values.flip(0).cumsum(0).flip(0), values.new_zeros(1)])
    return _shares(harms) if statistics is None else harms


def _separable_harms(site: Site, statistics: Statistics | None, axis: int) -> Tensor:
    """Harm by rank; ranks beyond the largest that pays are left out."""
    layer = site.layer
    k = layer.kernel_size
    most = int(layer.params / (layer.in_channels * k[axis] + layer.out_channels * k[1 - axis])) + 1
    if statistics is not None:
        return separation(site, site.target.weight, statistics.gram[0], statistics.metrics[0], axis).errors(
            most
        )
    weight = site.target.weight.detach().double().cpu()
    weight = weight if axis == 0 else weight.mT
    matrix = weight.permute(1, 2, 3, 0).flatten(2).flatten(0, 1)
    values = torch.linalg.svdvals(matrix).square()
    harms = torch.cat([values.flip(0).cumsum(0).flip(0), values.new_zeros(1)])
    return _shares(harms)[: most + 1]


def separation(site: Site, weight: Tensor, gram_II: Tensor, metric: Metric, axis: int) -> Separation:
    """The separable problem with the first factor along `axis` (1: on transposed taps)."""
    inputs, height, width = site.layer.in_channels, *site.layer.kernel_size
    weight_OIAB = weight.detach().double().cpu().reshape(-1, inputs, height, width)
    if axis == 0:
        return Separation(weight_OIAB, gram_II, metric)
    gram = gram_II.reshape(inputs, height, width, inputs, height, width)
    gram = gram.permute(0, 2, 1, 3, 5, 4).reshape(gram_II.shape)
    return Separation(weight_OIAB.mT, gram, metric)


def _shares(harms: Tensor) -> Tensor:
    return harms / harms[0].clamp_min(torch.finfo(harms.dtype).tiny)
