"""How many fixed filters each layer of a network trained from scratch gets: numbers in, numbers out.

One share of the full rank for all spatial convolutions, the largest that every budget allows. There are
no trained weights that could tell layers apart, and an equal share is about an equal share of the
operations in networks that double their channels where they halve their sides.
"""

import math
from dataclasses import dataclass
from math import prod

from basisconv.cost import Costs, Site, form_cost
from basisconv.errors import InfeasibleTarget, InvalidRequest
from basisconv.ranks.fraction import fraction_rank, round_rank
from basisconv.reasons import Reason
from basisconv.scratch.config import MOST_EXPANSION, ScratchConfig, Unit

SPARED = 0.5  # layers are spared the budget's share as long as the others keep half of what they could have

Ranks = dict[str, int]  # filters per group of every layer that gets fixed ones


@dataclass(frozen=True)
class Cost:
    macs: int
    params: int
    learnable_params: int


def choose(found: list[Site], before: Costs, config: ScratchConfig) -> Ranks:
    """Filters per replaced layer.

    Raises InvalidRequest for values or paths that do not fit the network, and InfeasibleTarget (with
    `achievable`) where one filter per layer is too many for a budget.
    """
    _check(found, config)
    sites = [site for site in found if site.layer.compressible and config.allows(site.layer.name)]
    spatial = [site for site in sites if is_spatial(site)]
    if config.ranks is not None:
        ranks = dict(config.ranks)
    elif config.rank_fraction is not None:
        ranks = {s.layer.name: _rank_at(s, config.rank_fraction, config) for s in spatial}
    elif config.expansion is not None:
        ranks = {s.layer.name: _expanded(s, config.expansion) for s in spatial}
    else:
        ranks = _within(sites, before, config)
    if not ranks:
        raise InvalidRequest("the network has no convolution that can take fixed filters")
    return ranks


def is_spatial(site: Site) -> bool:
    """A convolution that looks at more than one pixel: 1x1 and linear layers are mixings already."""
    return site.layer.kind == "conv2d" and prod(site.layer.kernel_size) > 1


def why_kept(site: Site, config: ScratchConfig) -> str:
    """Why a layer without fixed filters has none."""
    if site.layer.reason is not None:
        return site.layer.reason
    if not config.allows(site.layer.name):
        return Reason.EXCLUDED.value
    if config.ranks is not None:
        return Reason.NOT_REQUESTED.value
    return (Reason.LINEAR if site.layer.kind == "linear" else Reason.POINTWISE).value


def pair_cost(site: Site, rank: int) -> Cost:
    """Of fixed filters and learned mixing in the layer's place; the filters do not learn."""
    target = site.target
    cost = form_cost(site, "basis", rank, target.bias is not None)
    return Cost(cost.macs, cost.params, cost.params - site.layer.groups * rank * target.weight[0].numel())


def _check(found: list[Site], config: ScratchConfig) -> None:
    ways = [config.budgets or None, config.rank_fraction, config.expansion, config.ranks]
    if sum(way is not None for way in ways) != 1:
        raise InvalidRequest("give exactly one of budgets, rank_fraction, expansion and ranks")
    shares = [*config.budgets.items(), ("rank_fraction", config.rank_fraction)]
    for name, share in shares:
        if share is not None and not 0 < share <= 1:
            raise InvalidRequest(f"{name} must be in (0, 1], got {share!r}")
    if config.expansion is not None and not 0 < config.expansion <= MOST_EXPANSION:
        raise InvalidRequest(f"expansion must be in (0, {MOST_EXPANSION:g}], got {config.expansion!r}")
    layers = {site.layer.name: site.layer for site in found}
    for path in [*(config.include or ()), *config.exclude, *(config.ranks or {})]:
        if path not in layers:
            raise InvalidRequest(f"there is no layer {path!r} that the network runs")
    for path, rank in (config.ranks or {}).items():
        layer = layers[path]
        if not layer.compressible:
            raise InvalidRequest(f"it cannot be replaced ({layer.reason})", layer=path)
        if not 1 <= rank <= layer.max_rank:
            raise InvalidRequest(f"rank must be in [1, {layer.max_rank}], got {rank}", layer=path)


def _rank_at(site: Site, share: float, config: ScratchConfig) -> int:
    most = site.layer.max_rank
    return round_rank(fraction_rank(most, share), config.rank_multiple, most)


def _expanded(site: Site, expansion: float) -> int:
    outputs = site.layer.out_channels // site.layer.groups
    return max(1, int(outputs * expansion + 0.5))


def _within(sites: list[Site], before: Costs, config: ScratchConfig) -> Ranks:
    """The largest common share under the budgets.

    Spared where the budgets allow it: linear layers, 1x1 convolutions (both are learned mixings already)
    and the first spatial convolution, through which everything is seen: it gets as many filters as pay.
    """
    spatial = [site for site in sites if is_spatial(site)]
    pointwise = [site for site in sites if site.layer.kind == "conv2d" and not is_spatial(site)]
    stem = {s.layer.name: max(1, s.layer.break_even_rank) for s in spatial[:1]}
    tiers = [
        _Tier(spatial[1:], stem, before, spatial, config),
        _Tier(spatial, {}, before, spatial, config),
        _Tier([*spatial, *pointwise], {}, before, spatial, config),
        _Tier(sites, {}, before, spatial, config),
    ]
    shares = [tier.share() for tier in tiers]
    best = max((share for share in shares if share is not None), default=None)
    if best is None:
        raise tiers[-1].infeasible()
    for tier, share in zip(tiers, shares, strict=True):
        if share is not None and share >= SPARED * best:
            return tier.spent(share)
    raise AssertionError("the best share is at least half of itself")


class _Tier:
    """Some layers that follow the common share, others at fixed ranks, all the rest learned whole."""

    def __init__(
        self, following: list[Site], fixed: Ranks, before: Costs, spatial: list[Site], config: ScratchConfig
    ) -> None:
        self._following, self._fixed, self._config = following, fixed, config
        self._sites = {s.layer.name: s for s in [*following, *spatial]}
        self._always = {s.layer.name for s in spatial}
        self._before = before
        self._limits = {unit: _budget(_of(before, unit), s) for unit, s in config.budgets.items()}

    def share(self) -> float | None:
        """The largest share that fits; None where none does."""
        steps = {
            (r - 0.5) / s.layer.max_rank for s in self._following for r in range(1, s.layer.max_rank + 1)
        }
        ordered = sorted(min(step + 1e-9, 1.0) for step in steps) or [1.0]
        low, high = 0, len(ordered)  # shares below `low` fit, those from `high` on do not
        while low < high:
            middle = (low + high) // 2
            if self._fits(self.ranks(ordered[middle])):
                low = middle + 1
            else:
                high = middle
        return ordered[low - 1] if low else None

    def ranks(self, share: float) -> Ranks:
        found = dict(self._fixed)
        for site in self._following:
            rank = _rank_at(site, share, self._config)
            # 1x1 and linear layers gain nothing but costs from fixed filters
            if site.layer.name in self._always or rank <= site.layer.break_even_rank:
                found[site.layer.name] = rank
        return found

    def spent(self, share: float) -> Ranks:
        """The ranks at this share, and one step more for layers, the poorest first, while that still fits."""
        ranks = self.ranks(share)
        full = {name: self._sites[name].layer.max_rank for name in ranks}
        open_to_more = [name for name in ranks if name in self._always and name not in self._fixed]
        for name in sorted(open_to_more, key=lambda name: ranks[name] / full[name]):
            step = round_rank(ranks[name] + 1, self._config.rank_multiple, full[name])
            if self._fits({**ranks, name: step}):
                ranks[name] = step
        return ranks

    def infeasible(self) -> InfeasibleTarget:
        """Which budget one filter per layer is too many for."""
        least = self._costs(self.ranks(1e-9))
        for unit, limit in self._limits.items():
            total, smallest = _of(self._before, unit), _of(least, unit)
            if smallest > limit:
                share = math.ceil(smallest / total * 1e4) / 1e4
                return InfeasibleTarget(
                    f"The target keeps {limit / total:.1%} of {total:,} {unit}; with one filter in every "
                    f"layer that may change {share:.2%} remain.",
                    achievable=share,
                    hint="Ask for a larger share, or let more layers change.",
                )
        raise AssertionError("some budget is exceeded where no share fits")

    def _fits(self, ranks: Ranks) -> bool:
        cost = self._costs(ranks)
        return all(_of(cost, unit) <= limit for unit, limit in self._limits.items())

    def _costs(self, ranks: Ranks) -> Cost:
        macs, params, learnable = self._before.macs, self._before.params, self._before.params
        for name, rank in ranks.items():
            site = self._sites[name]
            pair = pair_cost(site, rank)
            macs += pair.macs - site.layer.macs
            params += pair.params - site.layer.params
            learnable += pair.learnable_params - site.layer.params
        return Cost(macs, params, learnable)


def _of(costs: Costs | Cost, unit: Unit) -> int:
    """A quantity; what can learn in the network as it is are all its parameters."""
    if isinstance(costs, Costs) and unit == "learnable_params":
        return costs.params
    value: int = getattr(costs, unit)
    return value


def _budget(total: int, share: float) -> int:
    return math.floor(total * share + 1e-6)
