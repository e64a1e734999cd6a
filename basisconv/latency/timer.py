"""What a runtime says about time: the protocol that all timers share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from basisconv.forms import Cut as Cut

Variant = Mapping[str, Cut]
"""Submodule path -> the pair that stands there; every other layer is the original's."""


@dataclass(frozen=True)
class Times:
    """One variant's nanoseconds inside the running network.

    `layers`: submodule path -> the layer or its pair, with what the runtime fuses into it; a layer that
    the runtime does not show by itself is left out. `rest`: everything else. `block`: the channels that
    the runtime computes together (a rank costs as much as the next multiple), None where it does not say.
    """

    layers: Mapping[str, float]
    rest: float
    block: int | None = None

    @property
    def total(self) -> float:
        return self.rest + sum(self.layers.values())


@dataclass(frozen=True)
class Whole:
    """Nanoseconds of the whole original and of a variant, timed in turns."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.after / self.before


class Timer(Protocol):
    """Times structures, not weights: a pair's numbers need not be its final ones."""

    def layers(self, variant: Variant) -> Times: ...

    def whole(self, variant: Variant) -> Whole: ...


@dataclass(frozen=True)
class Apart:
    """Layers by one timer, whole networks by another: for a runtime that does not show its layers' times."""

    by_layer: Timer
    as_whole: Timer

    def layers(self, variant: Variant) -> Times:
        return self.by_layer.layers(variant)

    def whole(self, variant: Variant) -> Whole:
        return self.as_whole.whole(variant)
