"""What every layer of a network takes in a runtime, as it is and as any pair: measured once."""

import statistics
from collections import defaultdict
from collections.abc import Generator as Steps
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from basisconv.config import Progress
from basisconv.cost import LayerCost, Site
from basisconv.latency.curve import Curve, timed_ranks
from basisconv.latency.timer import Cut, Timer, Times, Variant
from basisconv.nn import FORMS, Form
from basisconv.options import Option, full_rank

TIMING: Final = 0.4  # of the stage "calibrate"
Shape = tuple[object, ...]
Samples = Mapping[Form, Mapping[str, tuple[int, ...]]]  # ranks to time, by form and path


@dataclass(frozen=True)
class LatencyTable:
    """Nanoseconds: `total` of the original, `dense` of each open layer in it, `curves` of its pairs.

    Layers of one shape share their figures, the median of theirs. A layer that the runtime does not show
    by itself has none, and no pair of it counts as faster.
    """

    total: float
    dense: Mapping[str, float]
    curves: Mapping[tuple[str, Form], Curve]

    def ns(self, path: str, form: Form | Literal["dense"], rank: int | None) -> float | None:
        if form == "dense":
            return self.dense.get(path)
        curve = self.curves.get((path, form))
        return None if curve is None or rank is None else curve.ns(rank)

    def faster(self, path: str, options: Sequence[Option]) -> list[Option]:
        """Dense first, then the options that beat it, each with its nanoseconds."""
        own = round(self.dense.get(path, 0.0))
        found = [replace(option, ns=own) for option in options if option.form == "dense"]
        for option in options:
            ns = self.ns(path, option.form, option.rank)
            if option.form != "dense" and ns is not None and round(ns) < own:
                found.append(replace(option, ns=round(ns)))
        return found


def samples(
    open_sites: Sequence[Site], offered: Mapping[str, Mapping[Form, Mapping[int, LayerCost]]]
) -> dict[Form, dict[str, tuple[int, ...]]]:
    """The ranks to time, by form and path, of every layer to which a form is offered at some rank."""
    found: dict[Form, dict[str, tuple[int, ...]]] = {form: {} for form in FORMS}
    for site in open_sites:
        for form, costs in offered[site.layer.name].items():
            if costs:
                found[form][site.layer.name] = timed_ranks(max(costs), full_rank(site, form))
    return {form: ranks for form, ranks in found.items() if ranks}


def variants(wanted: Samples) -> Iterator[Variant]:
    """Whole networks that have every sample in them once, all layers of one in the same form."""
    for form, ranks in wanted.items():
        for at in range(max(len(r) for r in ranks.values())):
            yield {path: Cut(form, r[min(at, len(r) - 1)]) for path, r in ranks.items()}


def time_layers(
    timer: Timer, open_sites: Sequence[Site], wanted: Samples
) -> Steps[Progress, None, LatencyTable]:
    """Yields progress. The original is timed again between the variants: a machine drifts."""
    found = _Seen()
    todo = list(variants(wanted))
    for done, variant in enumerate(todo):
        told = f"Timing the layers as pairs, {done + 1} of {len(todo)}"
        yield Progress("calibrate", TIMING * done / len(todo), told)
        if done % 6 == 0:
            found.add({}, timer.layers({}))
        found.add(variant, timer.layers(variant))
    found.add({}, timer.layers({}))
    return found.table(open_sites)


@dataclass
class _Seen:
    """The least times so far."""

    total: float = float("inf")
    block: int | None = None
    dense: dict[str, float] = field(default_factory=dict)
    pairs: dict[tuple[str, Form], dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, variant: Variant, times: Times) -> None:
        self.block = self.block or times.block
        if not variant:
            self.total = min(self.total, times.total)
            for path, ns in times.layers.items():
                self.dense[path] = min(ns, self.dense.get(path, ns))
        for path, cut in variant.items():
            if path in times.layers:
                seen = self.pairs[path, cut.form]
                seen[cut.rank] = min(times.layers[path], seen.get(cut.rank, times.layers[path]))

    def table(self, open_sites: Sequence[Site]) -> LatencyTable:
        linear = {site.layer.name for site in open_sites if site.layer.kind == "linear"}
        alike: dict[Shape, list[str]] = defaultdict(list)
        for site in open_sites:
            alike[shape_of(site)].append(site.layer.name)
        dense: dict[str, float] = {}
        curves: dict[tuple[str, Form], Curve] = {}
        for paths in alike.values():
            own = [self.dense[path] for path in paths if path in self.dense]
            dense |= {path: statistics.median(own) for path in paths if path in self.dense}
            for form in FORMS:
                times = _medians([self.pairs[p, form] for p in paths if (p, form) in self.pairs])
                curve = Curve(times, None if paths[0] in linear else self.block)
                curves |= {(path, form): curve for path in paths if times and path in dense}
        return LatencyTable(self.total, dense, curves)


def _medians(seen: Sequence[Mapping[int, float]]) -> dict[int, float]:
    ranks = sorted({rank for times in seen for rank in times})
    return {rank: statistics.median(times[rank] for times in seen if rank in times) for rank in ranks}


def shape_of(site: Site) -> Shape:
    """What decides a layer's time: its geometry and the sizes that it runs on."""
    layer, module = site.layer, site.module
    geometry = tuple(str(getattr(module, name, None)) for name in ("padding", "dilation", "padding_mode"))
    return (
        layer.kind,
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.groups,
        tuple((call.input, call.output) for call in site.calls),
        geometry,
    )
