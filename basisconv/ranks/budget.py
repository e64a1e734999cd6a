"""One choice per layer under one budget for the whole network: least harm first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basisconv.errors import InfeasibleTarget

BINS = 4096  # of the dynamic programme; rounding is upward, and what it leaves over is spent exactly


@dataclass(frozen=True)
class Choice:
    """What one option of a layer costs (the budget's unit) and the harm it does."""

    cost: int
    harm: float


def allocate(layers: Sequence[Sequence[Choice]], budget: int) -> list[int]:
    """The index of one choice per layer with the least total harm and total cost <= `budget`.

    A multiple-choice knapsack: a dynamic programme over 4096 cost bins with costs rounded up, so that
    the budget holds exactly, then the remainder spent on the best single improvements.

    Raises InfeasibleTarget (achievable = the least possible cost over the budget's unit) if even the
    cheapest choices cost more.
    """
    least = cheapest(layers)
    if least > budget:
        raise InfeasibleTarget(f"the cheapest choices cost {least}, the budget is {budget}", float(least))
    frontiers = [_frontier(choices) for choices in layers]
    picks = _programme(layers, frontiers, budget)
    _spend_rest(layers, frontiers, picks, budget)
    return picks


def cheapest(layers: Sequence[Sequence[Choice]]) -> int:
    """The least total cost that any choice can have."""
    return sum(min(choice.cost for choice in choices) for choices in layers)


def _frontier(choices: Sequence[Choice]) -> list[int]:
    """Indices of the choices that no other beats in both cost and harm, cheapest first."""
    kept: list[int] = []
    for i in sorted(range(len(choices)), key=lambda i: (choices[i].cost, choices[i].harm)):
        if not kept or choices[i].harm < choices[kept[-1]].harm:
            kept.append(i)
    return kept


def _programme(
    layers: Sequence[Sequence[Choice]], frontiers: Sequence[Sequence[int]], budget: int
) -> list[int]:
    spare = budget - cheapest(layers)
    unit = max(1.0, spare / BINS)
    size = int(spare / unit) + 1
    harm = np.zeros(size)
    picked: list[NDArray[np.int32]] = []
    for choices, frontier in zip(layers, frontiers, strict=True):
        base = choices[frontier[0]].cost
        best, pick = np.full(size, np.inf), np.zeros(size, np.int32)
        for index in frontier:
            step = int(np.ceil((choices[index].cost - base) / unit))
            if step >= size:
                break
            total = harm[: size - step] + choices[index].harm
            better = total < best[step:]
            best[step:][better], pick[step:][better] = total[better], index
        harm, picked = best, [*picked, pick]
    return _walk_back(layers, frontiers, picked, unit, size - 1)


def _walk_back(
    layers: Sequence[Sequence[Choice]],
    frontiers: Sequence[Sequence[int]],
    picked: Sequence[NDArray[np.int32]],
    unit: float,
    at: int,
) -> list[int]:
    picks: list[int] = []
    for choices, frontier, pick in zip(reversed(layers), reversed(frontiers), reversed(picked), strict=True):
        index = int(pick[at])
        picks.append(index)
        at -= int(np.ceil((choices[index].cost - choices[frontier[0]].cost) / unit))
    return picks[::-1]


def _spend_rest(
    layers: Sequence[Sequence[Choice]], frontiers: Sequence[Sequence[int]], picks: list[int], budget: int
) -> None:
    """Take the single change that removes most harm until none fits: the bins' rounding loses nothing."""
    rest = budget - sum(choices[i].cost for choices, i in zip(layers, picks, strict=True))
    while True:
        changes = [
            (layers[at][picks[at]].harm - layers[at][index].harm, at, index)
            for at, frontier in enumerate(frontiers)
            for index in frontier
            if layers[at][index].cost - layers[at][picks[at]].cost <= rest
        ]
        gain, at, index = max(changes, default=(0.0, 0, 0))
        if gain <= 0:
            return
        rest -= layers[at][index].cost - layers[at][picks[at]].cost
        picks[at] = index
