"""Which layer becomes what: ranks by rule, or all layers at once under a budget."""

import math
from collections.abc import Mapping

from torch import Tensor

from basisconv.choice import Numbers, budget_of, choose, closed, dense
from basisconv.choice import Planned as Planned
from basisconv.config import BUDGETS, DecomposeConfig
from basisconv.cost import Costs, LayerCost, Site
from basisconv.errors import InfeasibleTarget, InvalidRequest
from basisconv.forms import Cut, Form
from basisconv.options import Measured, Option, Statistics, full_rank, options, pairs, separable


def check_request(found: list[Site], config: DecomposeConfig) -> None:
    """Raise InvalidRequest for values or paths that do not fit the network."""
    layers = {site.layer.name: site.layer for site in found}
    named = [*(config.include or ()), *config.exclude]
    if config.target_kind == "ranks":
        if not isinstance(config.target_value, Mapping):
            raise InvalidRequest(f"target ranks needs a rank per layer, got {config.target_value!r}")
        named += list(config.target_value)
    elif not isinstance(config.target_value, int | float) or not 0 < config.target_value <= 1:
        raise InvalidRequest(f"target {config.target_kind} must be in (0, 1], got {config.target_value!r}")
    for path in named:
        if path not in layers:
            raise InvalidRequest(f"there is no layer {path!r} that the network runs")
    sites = {site.layer.name: site for site in found}
    for path, asked in config.ranks.items():
        if not layers[path].compressible:
            raise InvalidRequest(f"it cannot be replaced ({layers[path].reason})", layer=path)
        if asked is not None:
            _check_rank(sites[path], asked)


def _check_rank(site: Site, asked: int | Cut) -> None:
    form, rank = Cut("basis", asked) if isinstance(asked, int) else asked
    if form != "basis" and not separable(site):
        raise InvalidRequest(f"it has no form {form}", layer=site.layer.name)
    most = full_rank(site, form)
    if not 1 <= rank <= most:
        raise InvalidRequest(f"rank must be in [1, {most}], got {rank}", layer=site.layer.name)


def candidates(found: list[Site], config: DecomposeConfig) -> list[Site]:
    """The layers that the request and their own nature leave open to change."""
    return [site for site in found if closed(site.layer, config) is None]


def plan(measured: Measured, config: DecomposeConfig) -> dict[str, Planned]:
    """One option per layer.

    `config` is the one that was measured with, or another value of its target, or macs for params and the
    reverse; of a budget that was not measured, check_feasible comes first.
    """
    return choose(_numbers(measured, config), config)


def _numbers(measured: Measured, config: DecomposeConfig) -> Numbers:
    """What was measured, as numbers; rules need no harms, only what every pair costs."""
    tables: Mapping[str, list[Option]] = measured.tables
    if config.target_kind not in BUDGETS:
        tables = {site.layer.name: _costs(site, config) for site in candidates(measured.sites, config)}
    energies = {path: found.tolist() for path, found in measured.energies.items()}
    layers, costs = [site.layer for site in measured.sites], measured.costs
    by_responses = bool(measured.metrics)
    return Numbers(layers, costs.macs, costs.params, tables, energies, by_responses, measured.ns)


def _costs(site: Site, config: DecomposeConfig) -> list[Option]:
    forms = pairs(site, "auto", 1, _adds_bias(site, config))
    cuts = ((form, rank, cost) for form, costs in forms.items() for rank, cost in costs.items())
    return [dense(site.layer), *(Option(form, rank, c.macs, c.params, 0.0) for form, rank, c in cuts)]


def allowed_pairs(site: Site, config: DecomposeConfig) -> dict[Form, dict[int, LayerCost]]:
    """Every cheaper pair that may stand in the layer's place, with its cost by rank."""
    return pairs(site, config.forms, config.rank_multiple, _adds_bias(site, config))


def _adds_bias(site: Site, config: DecomposeConfig) -> bool:
    return config.basis == "activations" or site.target.bias is not None


def check_feasible(found: list[Site], costs: Costs, config: DecomposeConfig) -> None:
    """Raise InfeasibleTarget where a budget cannot be met at any harm; needs no images.

    `achievable` is the smallest share that the open layers allow, rounded up to 0.01 %.
    """
    if config.target_kind not in ("macs", "params") or not isinstance(config.target_value, int | float):
        return
    unit: str = config.target_kind
    total: int = getattr(costs, unit)
    least = _least(found, costs, config)
    if least > budget_of(total, config.target_value):
        share = _share(least, total)
        raise InfeasibleTarget(
            f"The target keeps {config.target_value:.1%} of {total:,} {unit}; with every layer that may "
            f"change at its smallest rank {share:.2%} remain.",
            achievable=share,
            hint="Ask for a larger share, or let more layers change.",
        )


def least_share(found: list[Site], costs: Costs, config: DecomposeConfig) -> float:
    """The smallest share of a budget's quantity that the open layers allow, rounded up to 0.01 %."""
    return _share(_least(found, costs, config), getattr(costs, config.target_kind))


def _least(found: list[Site], costs: Costs, config: DecomposeConfig) -> int:
    unit: str = config.target_kind
    least: int = getattr(costs, unit)
    for site in candidates(found, config):
        now: int = getattr(site.layer, unit)
        forms = allowed_pairs(site, config).values()
        least -= max([0, *(now - getattr(cost, unit) for form in forms for cost in form.values())])
    return least


def _share(part: int, total: int) -> float:
    return min(1.0, math.ceil(part / total * 1e4) / 1e4) if total else 1.0


def table(
    site: Site, config: DecomposeConfig, statistics: Statistics | None, energies: Tensor | None = None
) -> list[Option]:
    """What could stand in an open layer's place, dense first."""
    bias = _adds_bias(site, config)
    return options(site, statistics, config.forms, config.rank_multiple, bias, energies)
