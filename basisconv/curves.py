"""A layer's options as a curve for people: what it costs against the least harm at that cost."""

from collections.abc import Sequence

import numpy as np

from basisconv.choice import Option

POINTS = 20


def sensitivity(table: Sequence[Option], points: int = POINTS) -> list[Option]:
    """At most `points` of a layer's options, fewest operations first, the layer itself last.

    Of the options that no other beats in both operations and harm, those nearest to evenly spaced shares of
    the layer's operations, with both ends.
    """
    best = _undominated(table)
    if len(best) <= points:
        return best
    macs = np.array([option.macs for option in best], float)
    wanted = np.linspace(macs[0], macs[-1], points)
    places = sorted({int(np.abs(macs - share).argmin()) for share in wanted})
    return [best[place] for place in places]


def _undominated(table: Sequence[Option]) -> list[Option]:
    kept: list[Option] = []
    for option in sorted(table, key=lambda option: (option.macs, option.harm)):
        if not kept or option.harm < kept[-1].harm:
            kept.append(option)
    return kept
