"""A plan, in its child: what a job would choose and what to expect of it, from a network's numbers.

Nothing here needs torch, which takes longer to import than a plan to make. Only where the network has not
been measured yet, worker/measuring.py is imported to do so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.core.errors import Internal
from basisconv.choice import Numbers, Option, Planned, budget_of, choose, closed, least, offered, weights
from basisconv.config import BUDGETS, DecomposeConfig
from basisconv.curves import POINTS, sensitivity
from basisconv.forms import FORMS, Cut
from basisconv.layers import Layer
from basisconv.outlook import Outlook
from worker import numbers as kept

Document = dict[str, Any]
Report = Callable[[Document], None]
MEASURED: Final = "measured"  # the file that a first plan leaves for the next ones
MOST_POINTS: Final = 40_000  # of all curves together: a document that a browser can take
# Squared error of fitted networks on images new to the fit, over the sum of what their layers' harms say.
# CIFAR ResNets at 30 to 80 % of their operations: 1.5 to 1.7 (docs/method.md).
GROWTH: Final = 1.6
TRIES: Final = 10  # halvings on the way to an allowed loss: a thousandth of the operations


@dataclass(frozen=True)
class Solved:
    planned: dict[str, Planned]
    config: DecomposeConfig  # what was planned in the end
    achievable: float | None
    warnings: list[dict[str, str]]
    feasible: bool = True


def plan(task: Document, folder: Path, report: Report) -> Document:
    """Handle a ``plan`` task. The answer names the file of a measurement that was made for it."""
    name = task.get("measurement")
    known = _read(folder / name) if name else _measure(task, folder, report)
    answer = document(known, task["compression"], task["open"])
    return {"plan": answer, "measurement": None if name else MEASURED}


def _read(path: Path) -> kept.Known:
    try:
        return kept.read(path)
    except (ValueError, KeyError, TypeError) as error:
        raise Internal(f"The network's measurement cannot be read ({type(error).__name__}).") from error


def _measure(task: Document, folder: Path, report: Report) -> kept.Known:
    from worker.measuring import measure_network

    report({"type": "progress", "fraction": 0.0, "message": "Reading the network"})
    known = measure_network(task, folder, report)
    kept.write(folder / MEASURED, known)
    return known


def document(known: kept.Known, compression: Document, open_layers: list[str]) -> Document:
    """The plan as the contract shows it."""
    numbers = known.numbers
    solved = _solve(known, _config(compression, open_layers), compression["target"].get("accuracy_drop"))
    return {
        "feasible": solved.feasible,
        "achievable": solved.achievable,
        "limits": {
            "macs": _share(least(numbers, solved.config, "macs"), numbers.macs),
            "params": _share(least(numbers, solved.config, "params"), numbers.params),
        },
        "original": {"macs": numbers.macs, "params": numbers.params},
        "predicted": _predicted(known, solved),
        "layers": _layers(numbers, solved),
        "ranks": _as_ranks(numbers, solved),
        "warnings": [*known.warnings, *solved.warnings, *_nothing(solved)],
    }


def _nothing(solved: Solved) -> list[dict[str, str]]:
    if any(choice.option.form != "dense" for choice in solved.planned.values()):
        return []
    return [{"code": "nothing_replaced", "detail": "With this request every layer stays as it is."}]


def _config(compression: Document, open_layers: list[str]) -> DecomposeConfig:
    """The request in the method's own terms; layers by their public names, as the numbers have them."""
    kind, value = next((kind, value) for kind, value in compression["target"].items() if value is not None)
    if kind == "ranks":
        value = {name: _cut(asked) for name, asked in value.items()}
    if kind == "accuracy_drop":
        kind, value = "macs", 1.0
    return DecomposeConfig(
        basis=compression["basis"],
        target_kind=kind,
        target_value=value,
        forms=compression["forms"],
        include=tuple(open_layers),
        rank_multiple=compression["rank_multiple"],
    )


def _cut(asked: int | Document) -> int | Cut | None:
    if isinstance(asked, int):
        return asked
    form = next((form for form in FORMS if form == asked["form"]), None)
    return None if form is None else Cut(form, asked["rank"])


def _solve(known: kept.Known, config: DecomposeConfig, allowed: float | None) -> Solved:
    if allowed is not None:
        return _within_loss(known, config, allowed)
    if config.target_kind in BUDGETS:
        return _within_budget(known.numbers, config)
    return Solved(choose(known.numbers, _narrowed(known.numbers, config)), config, None, [])


def _narrowed(numbers: Numbers, config: DecomposeConfig) -> DecomposeConfig:
    """Given ranks, without those of layers that cannot change after all: no image reached them, say."""
    if config.target_kind != "ranks":
        return config
    able = {layer.name for layer in numbers.layers if layer.compressible}
    return replace(config, target_value={n: asked for n, asked in config.ranks.items() if n in able})


def _within_budget(numbers: Numbers, config: DecomposeConfig) -> Solved:
    """The budget's plan; the smallest network where the budget cannot be met."""
    unit = config.target_kind
    assert unit in ("macs", "params")
    assert isinstance(config.target_value, int | float)
    total, floor = numbers.total(unit), least(numbers, config, unit)
    achievable = _share(floor, total)
    if floor <= budget_of(total, config.target_value):
        return Solved(choose(numbers, config), config, achievable, [])
    smallest = replace(config, target_value=achievable)
    words = {"macs": "operations", "params": "parameters"}[unit]
    detail = (
        f"The target keeps {config.target_value:.1%} of {total:,} {words}; with every layer that may change "
        f"at its smallest rank {achievable:.2%} remain. Ask for a larger share, or let more layers change."
    )
    warning = {"code": "target_infeasible", "detail": detail}
    return Solved(choose(numbers, smallest), smallest, achievable, [warning], feasible=False)


def _within_loss(known: kept.Known, config: DecomposeConfig, allowed: float) -> Solved:
    """The smallest share of the operations whose expected loss is allowed. A job fits networks and judges."""
    numbers = known.numbers
    low, high = _share(least(numbers, config, "macs"), numbers.macs), 1.0
    for _ in range(TRIES):
        middle = (low + high) / 2
        tried = replace(config, target_value=middle)
        loss = _expected_loss(known, tried, choose(numbers, tried))
        low, high = (low, middle) if loss <= allowed else (middle, high)
    found = replace(config, target_value=high)
    detail = f"About {high:.0%} of the operations, by what is expected. A job judges real networks."
    return Solved(choose(numbers, found), found, None, [{"code": "expected_only", "detail": detail}])


def _expected_loss(known: kept.Known, config: DecomposeConfig, planned: Mapping[str, Planned]) -> float:
    outlook = known.outlook
    if outlook is None:
        return 1.0
    error = expected_error(known.numbers, config, planned)
    lost = outlook.accuracy_lost(error)
    return outlook.answers_changed(error) if lost is None else lost


def expected_error(numbers: Numbers, config: DecomposeConfig, planned: Mapping[str, Planned]) -> float:
    """Square of the outputs' error on new images, as a share of their own, once all layers are fitted."""
    open_layers = [layer.name for layer in numbers.layers if closed(layer, config) is None]
    parts = zip(open_layers, weights(len(open_layers)), strict=True)
    return GROWTH * sum(weight * planned[name].option.harm for name, weight in parts)


def _predicted(known: kept.Known, solved: Solved) -> Document:
    numbers = known.numbers
    saved = [(layer, solved.planned[layer.name].option) for layer in numbers.layers]
    found: Document = {
        "macs": numbers.macs - sum(layer.macs - option.macs for layer, option in saved),
        "params": numbers.params - sum(layer.params - option.params for layer, option in saved),
        "error": None,
        "agreement": None,
        "accuracy_drop": None,
    }
    if numbers.measured:
        error = expected_error(numbers, solved.config, solved.planned)
        found["error"] = error
        found |= _answers(known.outlook, error)
    return found


def _answers(outlook: Outlook | None, error: float) -> Document:
    if outlook is None:
        return {}
    lost = outlook.accuracy_lost(error)
    drop = None if lost is None else max(0.0, lost)  # less than nothing is the sample's chance
    return {"agreement": 1 - outlook.answers_changed(error), "accuracy_drop": drop}


def _layers(numbers: Numbers, solved: Solved) -> list[Document]:
    points = max(2, min(POINTS, MOST_POINTS // max(1, len(numbers.layers))))
    return [_layer(layer, numbers, solved, points) for layer in numbers.layers]


def _layer(layer: Layer, numbers: Numbers, solved: Solved, points: int) -> Document:
    choice = solved.planned[layer.name]
    option = choice.option
    table = offered(numbers.tables.get(layer.name, []), solved.config)
    curve = [_point(one) for one in sensitivity(table, points)] if len(table) > 1 else None
    return {
        "name": layer.name,
        "kind": layer.kind,
        "form": option.form,
        "rank": option.rank,
        "max_rank": most_rank(layer, option.form) if layer.compressible else None,
        "replaced": option.form != "dense",
        "reason": choice.reason,
        "macs": option.macs,
        "params": option.params,
        "macs_before": layer.macs,
        "params_before": layer.params,
        "harm": option.harm,
        "sensitivity": curve,
    }


def _point(option: Option) -> Document:
    return {
        "form": option.form,
        "rank": option.rank,
        "macs": option.macs,
        "params": option.params,
        "harm": option.harm,
    }


def most_rank(layer: Layer, form: str) -> int:
    """The rank at which this form is the layer itself."""
    if form in ("dense", "basis"):
        return layer.max_rank
    first, second = layer.kernel_size if form == "kx1_1xk" else layer.kernel_size[::-1]
    return min(layer.in_channels * first, layer.out_channels * second)


def _as_ranks(numbers: Numbers, solved: Solved) -> Document:
    """What `target.ranks` of a job says to make just this: layers that may change and stay are named too,
    because they are refitted."""
    open_layers = [layer.name for layer in numbers.layers if closed(layer, solved.config) is None]
    return {name: _asked(solved.planned[name].option) for name in open_layers}


def _asked(option: Option) -> int | Document | None:
    if option.form == "basis":
        return option.rank
    return {"form": option.form, "rank": option.rank}


def _share(part: int, total: int) -> float:
    return min(1.0, math.ceil(part / total * 1e4) / 1e4) if total else 1.0
