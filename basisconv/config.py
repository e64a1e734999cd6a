"""What a decomposition is asked for, and what it reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from basisconv.forms import Cut
from basisconv.layers import Costs

TargetKind = Literal["macs", "params", "latency", "energy", "rank_fraction", "ranks"]
Ranks = Mapping[str, int | Cut | None]
BUDGETS: Final = ("macs", "params", "latency")  # targets that all layers share


@dataclass(frozen=True)
class DecomposeConfig:
    """What to do; paths are submodule paths.

    `target_value`: macs, params, latency: the share of the network to keep at most; energy: the paper's t;
    rank_fraction: the share of each convolution's full rank; ranks: {path: rank of the paper's form, a Cut,
    or None for a layer that stays but is refitted with the others}. `forms`: "auto" applies to macs, params
    and latency; the other targets are about the paper's form. `include`: paths that may change (None: all);
    `exclude` wins.
    """

    basis: Literal["activations", "weights"] = "activations"
    target_kind: TargetKind = "macs"
    target_value: float | Ranks = 0.5
    forms: Literal["basis", "auto"] = "auto"
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    rank_multiple: int = 1
    seed: int = 0

    @property
    def ranks(self) -> Ranks:
        """What the target "ranks" names; nothing under other targets."""
        return self.target_value if isinstance(self.target_value, Mapping) else {}

    def allows(self, path: str) -> bool:
        return path not in self.exclude and (self.include is None or path in self.include)


@dataclass(frozen=True)
class Progress:
    """`fraction` of the stage that is done."""

    stage: Literal["calibrate", "decompose"]
    fraction: float
    message: str


@dataclass(frozen=True)
class LayerOutcome:
    """What became of a layer: `form` is "dense" and `rank` None for one that stays.

    `error`: with basis weights the share of the filters' energy that is lost; with activations the share
    of the wanted response's variance that is missed on the calibration images; None for a layer that stays.
    """

    name: str
    form: str
    rank: int | None
    replaced: bool
    reason: str | None
    error: float | None


@dataclass(frozen=True)
class Decomposition:
    """The end of decompose_: every layer's outcome in the order of execution, and the network's new costs."""

    layers: list[LayerOutcome]
    costs: Costs
