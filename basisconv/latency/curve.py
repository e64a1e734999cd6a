"""A form's time by rank: a few timed ranks, and what lies between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

GRAIN: Final = 16  # of the timed ranks: a multiple of every block that is known (8, 16)
POINTS: Final = 6  # timed ranks of one form that are multiples: times are close to straight lines
BELOW: Final = (4, 15)  # ranks that fill no block: there runtimes leave their blocked layout


def timed_ranks(most: int, limit: int) -> tuple[int, ...]:
    """Which ranks to time for options up to `most`; none beyond `limit`, the form's full rank.

    Two below the blocks, then at most six multiples of 16, evenly, of which the last is at or above `most`.
    """
    blocks = -(-most // GRAIN)
    steps = np.unique(np.linspace(1, blocks, min(POINTS, blocks)).round().astype(int))
    below = {min(rank, most) for rank in BELOW}
    return tuple(sorted({*below, *(min(limit, GRAIN * int(step)) for step in steps)}))


@dataclass(frozen=True)
class Curve:
    """Nanoseconds at some ranks.

    `block`: channels that the runtime computes together; None where it is unknown.
    """

    times: Mapping[int, float]
    block: int | None

    def ns(self, rank: int) -> float:
        """At any rank up to the largest timed one; at timed ranks never more than what was measured.

        Ranks are rounded up to the block, and lie on straight lines between timed ranks; those below the
        first block, where a runtime may change its layout, on lines of their own. Without a known block they
        cost what the next timed rank costs. A larger rank that was timed faster counts for the smaller too,
        which could be filled up with zeros.

        Raises ValueError beyond the largest timed rank.
        """
        last = max(self.times)
        if rank > last:
            raise ValueError(f"rank {rank} is beyond the largest that was timed, {last}")
        if self.block is None:
            return min(ns for timed, ns in self.times.items() if timed >= rank)
        below = {timed: ns for timed, ns in self.times.items() if timed < (self.block or 1)}
        if rank < self.block and below:
            return _on_lines(below, rank)
        return _on_lines(_falling_back(self._blocks), self._rounded(rank))

    def _rounded(self, rank: int) -> int:
        block = self.block or 1
        return -(-rank // block) * block

    @property
    def _blocks(self) -> dict[int, float]:
        """The timed ranks from the first block on, as the blocks that they fill."""
        found: dict[int, float] = {}
        for timed, ns in self.times.items():
            if timed >= (self.block or 1):
                found[self._rounded(timed)] = min(ns, found.get(self._rounded(timed), ns))
        return found


def _falling_back(times: Mapping[int, float]) -> dict[int, float]:
    """No rank slower than a larger one."""
    ranks = sorted(times, reverse=True)
    return dict(zip(ranks, accumulate((times[rank] for rank in ranks), min), strict=True))


def _on_lines(times: Mapping[int, float], rank: int) -> float:
    ranks = sorted(times)
    return float(np.interp(rank, ranks, [times[r] for r in ranks]))
