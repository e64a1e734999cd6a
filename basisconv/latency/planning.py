"""A share of the time as the target: time the layers, choose, time the choice, choose again if it missed."""

import math
from collections.abc import Generator as Steps
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor, nn

from basisconv.config import DecomposeConfig, Progress
from basisconv.cost import LayerCost
from basisconv.errors import InfeasibleTarget, InvalidRequest
from basisconv.latency.table import LatencyTable, samples, time_layers
from basisconv.latency.timer import Cut, Timer, Variant
from basisconv.measure import check
from basisconv.nn import Form
from basisconv.options import Measured
from basisconv.plan import Planned, allowed_pairs, candidates, plan

AIM: Final = 0.98  # of the wanted time: the finished network is judged by another timing
CLOSE: Final = 0.97  # of the aim: a choice that is this near is not made again
TRIES: Final = 3
MOST_CORRECTION: Final = 1.2  # of the budget at once: more is a disturbed timing, not the runtime


@dataclass(frozen=True)
class Timed:
    """What a runtime said: every layer's times, and the fastest network that they allow, timed as a whole."""

    timer: Timer
    table: LatencyTable
    fastest: Variant
    least: float  # the fastest network's share of the original's time


def time_network(
    module: nn.Module, example: Tensor, config: DecomposeConfig, timer: Timer | None
) -> Steps[Progress, None, Timed]:
    """Yields progress. `timer`: of `module`, by the same paths.

    Raises InvalidRequest and MalformedWeights as `measure` does, and InfeasibleTarget with the measured
    share of the fastest network as `achievable`.
    """
    if timer is None:
        raise InvalidRequest("a latency target needs a timer of the runtime that it is about")
    open_sites = candidates(check(module, example, config), config)
    offered = {site.layer.name: allowed_pairs(site, config) for site in open_sites}
    table = yield from time_layers(timer, open_sites, samples(open_sites, offered))
    cuts = ((path, _fastest(table, path, forms)) for path, forms in offered.items())
    fastest = {path: cut for path, cut in cuts if cut is not None}
    least = _least(timer, fastest, config)
    _check_feasible(least, config)
    return Timed(timer, table, fastest, least)


def _fastest(table: LatencyTable, path: str, forms: Mapping[Form, Mapping[int, LayerCost]]) -> Cut | None:
    """The pair with the least time below the layer's own; of equally fast ones the largest."""
    own = table.ns(path, "dense", None)
    cuts = [Cut(form, rank) for form, ranks in forms.items() for rank in ranks]
    timed = ((table.ns(path, *cut), -cut.rank, cut.form) for cut in cuts)
    faster = [(ns, rank, form) for ns, rank, form in timed if ns is not None and own is not None and ns < own]
    if not faster:
        return None
    _, rank, form = min(faster)
    return Cut(form, -rank)


def _least(timer: Timer, fastest: Variant, config: DecomposeConfig) -> float:
    """The fastest network's share of the time. Before a target is refused it is timed again, twice."""
    if not fastest:
        return 1.0
    least = timer.whole(fastest).ratio
    for _ in range(TRIES - 1):
        if isinstance(config.target_value, Mapping) or least <= config.target_value:
            break
        least = min(least, timer.whole(fastest).ratio)
    return least


def _check_feasible(least: float, config: DecomposeConfig) -> None:
    wanted = config.target_value
    if isinstance(wanted, Mapping) or least <= wanted:
        return
    share = min(1.0, math.ceil(least * 1e3) / 1e3)
    raise InfeasibleTarget(
        f"The target keeps {wanted:.1%} of the time; with every layer that may change as its fastest pair "
        f"{share:.1%} remain on this machine.",
        achievable=share,
        hint="Ask for a larger share, let more layers change, or aim at operations (macs) instead.",
    )


def plan_timed(
    measured: Measured, config: DecomposeConfig, timed: Timed
) -> Steps[Progress, None, dict[str, Planned]]:
    """One option per layer, from the timed ones; the whole that they make is timed beside the original.

    The sum of layers' times predicts the whole up to what the runtime does between them. So the budget is
    set again by the ratio of wanted and timed share, at most twice. The slowest choice within the target
    counts, which does least harm; if none was, the fastest network.
    """
    wanted = config.target_value
    assert isinstance(wanted, int | float)
    measured = with_times(measured, timed.table)
    floor = _predicted_least(measured)
    share, best, best_ratio = wanted * AIM, None, 0.0
    for _ in range(TRIES):
        share = max(share, floor)
        planned = plan(measured, replace(config, target_value=min(1.0, share)))
        ratio = timed.timer.whole(variant_of(planned)).ratio
        yield Progress("decompose", 0.0, f"The chosen network takes {ratio:.1%} of the original's time")
        if best_ratio < ratio <= wanted:
            best, best_ratio = planned, ratio
        if CLOSE <= ratio / (wanted * AIM) <= 1 or share >= 1:
            break
        share *= min(max(wanted * AIM / ratio, 1 / MOST_CORRECTION), MOST_CORRECTION)
    return best or plan(measured, replace(config, target_value=floor))


def with_times(measured: Measured, table: LatencyTable) -> Measured:
    """The same options with their times, without those that are not faster than their layer."""
    tables = {path: table.faster(path, options) for path, options in measured.tables.items()}
    return replace(measured, tables=tables, ns=round(table.total))


def variant_of(planned: Mapping[str, Planned]) -> Variant:
    """What a plan puts where."""
    options = ((path, choice.option) for path, choice in planned.items())
    return {
        path: Cut(option.form, option.rank)
        for path, option in options
        if option.form != "dense" and option.rank is not None
    }


def _predicted_least(measured: Measured) -> float:
    """The smallest share that a plan can be asked for."""
    saved = sum(table[0].ns - min(option.ns for option in table) for table in measured.tables.values())
    return min(1.0, (measured.ns - saved + 1) / measured.ns)
