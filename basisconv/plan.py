"""Which layer becomes what: ranks by rule, or all layers at once under a budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from basisconv.config import BUDGETS, DecomposeConfig
from basisconv.cost import Costs, LayerCost, Site, form_cost
from basisconv.errors import InfeasibleTarget, InvalidRequest
from basisconv.nn import Form
from basisconv.options import Measured, Option, Statistics, cheaper, dense_option, options, pairs
from basisconv.ranks.budget import Choice, allocate
from basisconv.ranks.energy import energy_rank
from basisconv.ranks.fraction import fraction_rank, round_rank
from basisconv.reasons import Reason

EARLY_LAYERS = 1 / 3  # weight of the first layer's harm, rising to 1: later fits make up for early losses


@dataclass(frozen=True)
class Planned:
    option: Option
    reason: str | None  # why the layer stays dense


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
    for path, rank in _ranks(config).items():
        layer = layers[path]
        if not layer.compressible:
            raise InvalidRequest(f"it cannot be replaced ({layer.reason})", layer=path)
        if not 1 <= rank <= layer.max_rank:
            raise InvalidRequest(f"rank must be in [1, {layer.max_rank}], got {rank}", layer=path)


def candidates(found: list[Site], config: DecomposeConfig) -> list[Site]:
    """The layers that the request and their own nature leave open to change."""
    return [site for site in found if _closed(site, config) is None]


def plan(measured: Measured, config: DecomposeConfig) -> dict[str, Planned]:
    """One option per layer.

    `config` is the one that was measured with, or another value of its target, or macs for params and the
    reverse; of a budget that was not measured, check_feasible comes first.
    """
    found = measured.sites
    kept = {site.layer.name: _closed(site, config) for site in found}
    planned = {s.layer.name: Planned(dense_option(s), kept[s.layer.name]) for s in found}
    open_sites = candidates(found, config)
    if config.target_kind in BUDGETS:
        return planned | _under_budget(open_sites, measured, config)
    return planned | {s.layer.name: _by_rule(s, config, measured) for s in open_sites}


def _closed(site: Site, config: DecomposeConfig) -> str | None:
    """Why this layer is not open to change, if it is not."""
    layer = site.layer
    if not layer.compressible:
        return layer.reason
    if not config.allows(layer.name):
        return Reason.EXCLUDED.value
    if config.target_kind == "ranks":
        return None if layer.name in _ranks(config) else Reason.NOT_REQUESTED.value
    if layer.kind == "linear" and config.target_kind not in BUDGETS:
        return Reason.LINEAR.value
    return None


def _ranks(config: DecomposeConfig) -> dict[str, int]:
    return dict(config.target_value) if isinstance(config.target_value, Mapping) else {}


def _by_rule(site: Site, config: DecomposeConfig, measured: Measured) -> Planned:
    """The paper's form at the rule's rank, or dense where that is not cheaper."""
    layer, value = site.layer, config.target_value
    if isinstance(value, Mapping):
        rank = value[layer.name]
    else:
        if config.target_kind == "energy":
            rank = energy_rank(measured.energies[layer.name], value)
        else:
            rank = fraction_rank(layer.max_rank, value)
        rank = round_rank(rank, config.rank_multiple, layer.max_rank)
    cost = form_cost(site, "basis", rank, _adds_bias(site, config))
    if not cheaper(site, cost.macs, cost.params):
        return Planned(dense_option(site), Reason.NOT_CHEAPER.value)
    return Planned(Option("basis", rank, cost.macs, cost.params, 0.0), None)


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
    if least > _budget(total, config.target_value):
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


def _budget(total: int, share: float) -> int:
    return math.floor(total * share + 1e-6)


def _under_budget(open_sites: list[Site], measured: Measured, config: DecomposeConfig) -> dict[str, Planned]:
    """Least harm under the budget for the whole network; early layers count less."""
    timed = config.target_kind == "latency"
    unit: str = "ns" if timed else config.target_kind
    total: int = measured.ns if timed else getattr(measured.costs, unit)
    assert isinstance(config.target_value, int | float)
    tables = [measured.tables[site.layer.name] for site in open_sites]
    if measured.metrics:
        tables = _discounted(tables)
    choices = [[Choice(getattr(option, unit), option.harm) for option in found] for found in tables]
    fixed = total - sum(found[0].cost for found in choices)  # dense is first
    chosen = allocate(choices, _budget(total, config.target_value) - fixed)
    picks = [found[i] for found, i in zip(tables, chosen, strict=True)]
    return {
        site.layer.name: Planned(pick, None if pick.form != "dense" else _why_dense(found, timed))
        for site, found, pick in zip(open_sites, tables, picks, strict=True)
    }


def _why_dense(found: list[Option], timed: bool) -> str:
    if len(found) > 1:
        return Reason.WITHIN_BUDGET.value
    return (Reason.NOT_FASTER if timed else Reason.NOT_CHEAPER).value


def table(site: Site, config: DecomposeConfig, statistics: Statistics | None) -> list[Option]:
    """What could stand in an open layer's place, dense first."""
    return options(site, statistics, config.forms, config.rank_multiple, _adds_bias(site, config))


def _discounted(tables: list[list[Option]]) -> list[list[Option]]:
    if len(tables) < 2:
        return tables
    weights = [EARLY_LAYERS ** (1 - place / (len(tables) - 1)) for place in range(len(tables))]
    return [
        [replace(option, harm=option.harm * weight) for option in found]
        for found, weight in zip(tables, weights, strict=True)
    ]
