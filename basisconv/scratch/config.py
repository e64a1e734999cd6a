"""What a network trained from scratch is asked to be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["macs", "params", "learnable_params"]
MOST_EXPANSION = 16.0


@dataclass(frozen=True)
class ScratchConfig:
    """How many fixed filters each convolution gets; give exactly one of the first four.

    `budgets`: at most these shares of the network as it is, all at once. `rank_fraction`: this share of
    every spatial convolution's full rank, in (0, 1]. `expansion`: this many filters per output channel, in
    (0, 16]; above full rank they come in several orthogonal blocks. `ranks`: {path: filters}; other layers
    are learned whole. `include`: paths that may change (None: all); `exclude` wins. `seed` decides the
    filters and the first weights.
    """

    budgets: Mapping[Unit, float] = field(default_factory=dict)
    rank_fraction: float | None = None
    expansion: float | None = None
    ranks: Mapping[str, int] | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    rank_multiple: int = 1
    seed: int = 0

    def allows(self, path: str) -> bool:
        return path not in self.exclude and (self.include is None or path in self.include)
