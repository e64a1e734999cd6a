"""One number decides how far a peer goes: the largest that keeps the budget, by bisection."""

from collections.abc import Callable

STEPS = 24  # halvings: 1 / 2^24 of the whole range


def largest(keeps: Callable[[float], bool]) -> float:
    """The largest number in (0, 1] for which `keeps` holds, `keeps` being true below and false above it.

    Raises ValueError if it holds nowhere.
    """
    if keeps(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    if low == 0.0:
        raise ValueError("the budget cannot be kept")
    return low
