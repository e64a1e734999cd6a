"""One choice for every layer, from numbers alone: ranks by rule, or all layers at once under a budget.

Needs no torch: what was measured once can be kept as numbers, and plans for other wishes made from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from typing import Final, Literal

from basisconv.config import BUDGETS, DecomposeConfig
from basisconv.forms import Cut, Form
from basisconv.layers import Layer
from basisconv.ranks.budget import Choice, allocate
from basisconv.ranks.energy import energy_rank
from basisconv.ranks.fraction import fraction_rank, round_rank
from basisconv.reasons import Reason

Kept = Literal["dense"]
EARLY_LAYERS: Final = (
    1 / 3
)  # weight of the first layer's harm, rising to 1: later fits make up for early losses


@dataclass(frozen=True)
class Option:
    """A form and rank for one layer. `harm` is the metric's squared error, or a share of the energy.

    `ns`: what it was timed at, under a latency target.
    """

    form: Form | Kept
    rank: int | None
    macs: int
    params: int
    harm: float
    ns: int = 0


@dataclass(frozen=True)
class Planned:
    option: Option
    reason: str | None  # why the layer stays dense


@dataclass(frozen=True)
class Numbers:
    """All that a plan needs to know of a network; layers by name, in the order of execution.

    `tables`: what could stand in a layer's place, dense first, then pairs that are cheaper; at least of
    every layer that the request leaves open. `energies`: of the paper's form, largest first, where the
    target is one. `measured`: the harms are of responses, not shares of the filters' energy.
    """

    layers: Sequence[Layer]
    macs: int
    params: int
    tables: Mapping[str, Sequence[Option]]
    energies: Mapping[str, Sequence[float]] = field(default_factory=dict)
    measured: bool = True
    ns: int = 0

    def total(self, unit: str) -> int:
        found: int = getattr(self, unit)
        return found


def dense(layer: Layer) -> Option:
    """The layer as it is."""
    return Option("dense", None, layer.macs, layer.params, 0.0)


def closed(layer: Layer, config: DecomposeConfig) -> str | None:
    """Why this layer is not open to change, if it is not."""
    if not layer.compressible:
        return layer.reason
    if not config.allows(layer.name):
        return Reason.EXCLUDED.value
    if config.target_kind == "ranks":
        return None if layer.name in config.ranks else Reason.NOT_REQUESTED.value
    if layer.kind == "linear" and config.target_kind not in BUDGETS:
        return Reason.LINEAR.value
    return None


def choose(numbers: Numbers, config: DecomposeConfig) -> dict[str, Planned]:
    """One option per layer. A budget that cannot be met raises InfeasibleTarget in the budget's own units."""
    kept = {layer.name: closed(layer, config) for layer in numbers.layers}
    planned = {layer.name: Planned(dense(layer), kept[layer.name]) for layer in numbers.layers}
    open_layers = [layer for layer in numbers.layers if kept[layer.name] is None]
    if config.target_kind in BUDGETS:
        return planned | _under_budget(open_layers, numbers, config)
    return planned | {layer.name: _by_rule(layer, numbers, config) for layer in open_layers}


def offered(table: Sequence[Option], config: DecomposeConfig) -> list[Option]:
    """Those of a layer's options that the request's forms and rank multiple allow; dense always is."""
    return [option for option in table if _allows(option, config)]


def least(numbers: Numbers, config: DecomposeConfig, unit: Literal["macs", "params", "ns"]) -> int:
    """The least that any plan within the request can cost."""
    total = numbers.total(unit)
    for layer in numbers.layers:
        if closed(layer, config) is None:
            costs = [getattr(option, unit) for option in offered(numbers.tables[layer.name], config)]
            total -= costs[0] - min(costs)  # dense is first
    return total


def budget_of(total: int, share: float) -> int:
    """What a share of a total allows."""
    return floor(total * share + 1e-6)


def weights(count: int) -> list[float]:
    """How much the harm of each of `count` layers in a row counts."""
    if count < 2:
        return [1.0] * count
    return [EARLY_LAYERS ** (1 - place / (count - 1)) for place in range(count)]


def _allows(option: Option, config: DecomposeConfig) -> bool:
    if option.form == "dense" or option.rank is None:
        return True
    return (config.forms == "auto" or option.form == "basis") and option.rank % config.rank_multiple == 0


def _by_rule(layer: Layer, numbers: Numbers, config: DecomposeConfig) -> Planned:
    """The rule's form and rank, or dense where that is not cheaper."""
    cut = _asked(layer, numbers, config)
    if cut is None:
        return Planned(dense(layer), Reason.AS_ASKED.value)
    table = numbers.tables[layer.name]
    found = next((option for option in table if (option.form, option.rank) == cut), None)
    if found is None:
        return Planned(dense(layer), Reason.NOT_CHEAPER.value)
    return Planned(found, None)


def _asked(layer: Layer, numbers: Numbers, config: DecomposeConfig) -> Cut | None:
    """The pair that a rule asks for; None: the layer itself."""
    value = config.target_value
    if isinstance(value, Mapping):
        asked = value[layer.name]
        return Cut("basis", asked) if isinstance(asked, int) else asked
    if config.target_kind == "energy":
        rank = energy_rank(numbers.energies[layer.name], value)
    else:
        rank = fraction_rank(layer.max_rank, value)
    return Cut("basis", round_rank(rank, config.rank_multiple, layer.max_rank))


def _under_budget(
    open_layers: Sequence[Layer], numbers: Numbers, config: DecomposeConfig
) -> dict[str, Planned]:
    """Least harm under the budget for the whole network; early layers count less."""
    timed = config.target_kind == "latency"
    unit: str = "ns" if timed else config.target_kind
    assert isinstance(config.target_value, int | float)
    tables = [offered(numbers.tables[layer.name], config) for layer in open_layers]
    judged = _discounted(tables) if numbers.measured else tables
    choices = [[Choice(getattr(option, unit), option.harm) for option in found] for found in judged]
    total = numbers.total(unit)
    fixed = total - sum(found[0].cost for found in choices)  # dense is first
    picks = allocate(choices, budget_of(total, config.target_value) - fixed)
    chosen = [found[pick] for found, pick in zip(tables, picks, strict=True)]
    return {
        layer.name: Planned(pick, None if pick.form != "dense" else _why_dense(found, timed))
        for layer, found, pick in zip(open_layers, tables, chosen, strict=True)
    }


def _why_dense(found: Sequence[Option], timed: bool) -> str:
    if len(found) > 1:
        return Reason.WITHIN_BUDGET.value
    return (Reason.NOT_FASTER if timed else Reason.NOT_CHEAPER).value


def _discounted(tables: Sequence[Sequence[Option]]) -> list[list[Option]]:
    return [
        [replace(option, harm=option.harm * weight) for option in found]
        for found, weight in zip(tables, weights(len(tables)), strict=True)
    ]
