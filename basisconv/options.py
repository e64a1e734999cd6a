"""What could stand in each layer's place, what it costs and what harm it does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from basisconv.basis.activations import Metric, response_energies
from basisconv.basis.separable import Separation
from basisconv.basis.weights import weight_energies
from basisconv.choice import Option as Option
from basisconv.choice import dense
from basisconv.cost import Costs, LayerCost, Site, form_cost
from basisconv.nn import FORMS, Form
from basisconv.patches import is_wide, seen_weight


@dataclass(frozen=True)
class Statistics:
    """What the calibration images said of one layer: patch covariance and output metric of each group."""

    gram: Tensor
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Measured:
    """One measurement of a network, good for any number of plans; layers by path.

    `tables`: under a budget, every option of each open layer, dense first, its harm not yet discounted.
    `energies`: under a budget or an energy target, the basis form's directions. `metrics` is empty for plans
    by the weights alone; `random` is the generator's state after measuring, from which every fit goes on.
    `ns`: the original's time, where it and the tables' options were timed.
    """

    sites: list[Site]
    costs: Costs
    tables: Mapping[str, list[Option]]
    energies: Mapping[str, Tensor]
    metrics: Mapping[str, tuple[Metric, ...]] = field(default_factory=dict)
    batches: int = 0
    random: Tensor | None = None
    ns: int = 0


def options(
    site: Site,
    statistics: Statistics | None,
    forms: Literal["basis", "auto"],
    multiple: int,
    bias: bool,
    energies: Tensor | None = None,
) -> list[Option]:
    """Dense first, then every cheaper pair, with its harm. `energies`: what spectra() gave, if it was asked.

    Without statistics the harm is the share of the filters' own energy that is lost.
    """
    energies = spectra(site, statistics) if energies is None else energies
    found = [dense(site.layer)]
    allowed = {form: costs for form, costs in pairs(site, forms, multiple, bias).items() if costs}
    harms_of = _harms(site, statistics, {form: max(costs) for form, costs in allowed.items()}, energies)
    for form, costs in allowed.items():
        harms = harms_of[form]
        found += [Option(form, r, cost.macs, cost.params, float(harms[r])) for r, cost in costs.items()]
    return found


def pairs(
    site: Site, forms: Literal["basis", "auto"], multiple: int, bias: bool
) -> dict[Form, dict[int, LayerCost]]:
    """What each form costs at every rank that is a multiple of `multiple` and cheaper than the layer."""
    some = FORMS if forms == "auto" and separable(site) else FORMS[:1]
    found: dict[Form, dict[int, LayerCost]] = {}
    for form in some:
        ranks = range(multiple, full_rank(site, form) + 1, multiple)
        costs = ((r, form_cost(site, form, r, bias)) for r in ranks)
        found[form] = {r: cost for r, cost in costs if cheaper(site, cost.macs, cost.params)}
    return found


def full_rank(site: Site, form: Form) -> int:
    """The smallest rank at which the form is exact."""
    if form == "basis":
        return site.layer.max_rank
    axis = 0 if form == "kx1_1xk" else 1
    kernel = site.layer.kernel_size
    return min(site.layer.in_channels * kernel[axis], site.layer.out_channels * kernel[1 - axis])


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
    return torch.stack([response_energies(w, g, m) for w, g, m in parts]).sum(0)


def _harms(
    site: Site, statistics: Statistics | None, most: Mapping[Form, int], energies: Tensor
) -> dict[Form, Tensor]:
    """Of each form by rank, from 0 to at least `most`."""
    found: dict[Form, Tensor] = {}
    if "basis" in most:
        harms = _left_over(energies)
        found["basis"] = _shares(harms) if statistics is None else harms
    separable_ones = {form: rank for form, rank in most.items() if form != "basis"}
    if not separable_ones:
        return found
    if statistics is None:
        return found | {form: _separable_shares(site, form) for form in separable_ones}
    problem = separation(site, site.target.weight, statistics.gram[0], statistics.metrics[0])
    for form, rank in separable_ones.items():
        found[form] = (problem if form == "kx1_1xk" else problem.turned()).errors(rank)
    return found


def _left_over(energies: Tensor) -> Tensor:
    """What is missed with the first 0, 1, 2 … directions."""
    return torch.cat([energies.flip(0).cumsum(0).flip(0), energies.new_zeros(1)])


def _separable_shares(site: Site, form: Form) -> Tensor:
    weight_OIAB = site.target.weight.detach().double().cpu()
    weight_OIAB = weight_OIAB if form == "kx1_1xk" else weight_OIAB.mT
    values = torch.linalg.svdvals(weight_OIAB.permute(1, 2, 3, 0).flatten(2).flatten(0, 1)).square()
    return _shares(_left_over(values))


def separation(site: Site, weight: Tensor, gram_II: Tensor, metric: Metric) -> Separation:
    """The separable problem with the first factor along the kernel's first axis."""
    weight_OIAB = weight.detach().double().cpu().reshape(-1, site.layer.in_channels, *site.layer.kernel_size)
    return Separation.of(weight_OIAB, gram_II, metric)


def _shares(harms: Tensor) -> Tensor:
    return harms / harms[0].clamp_min(torch.finfo(harms.dtype).tiny)
