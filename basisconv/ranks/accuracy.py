"""The smallest share of the operations that loses no more than allowed, by few and costly tries.

Numbers in, numbers out: the search asks for a share and is told the loss. It trusts the shape of the loss
only for where to look next, never for what it returns.
"""

import math
from collections.abc import Generator

Search = Generator[float, float, float | None]  # asks for shares, is sent losses, returns the share found

FIRST = 0.5  # of the operations: about where CIFAR ResNets lose one point
SLOPE = 8.0  # -d ln(loss) / d share, seen there over two decades of losses; used until two tries tell it
FOLLOWED = 3  # tries along the curve that may fail to halve the bracket; after them every try halves it
FLOOR = 1 / 8  # of what is allowed: smaller and negative losses are noise to a logarithm


def smallest_share(allowed: float, least: float, tolerance: float = 0.02) -> Search:
    """Search between `least` and 1 for the smallest share whose loss is at most `allowed`, None for none.

    A share of 1 is the network itself, which is not tried; `least` is the smallest that is possible. Where
    the loss falls as the share grows, the share returned is within `tolerance` of the one where it crosses
    `allowed` (of `least`, if it never does; an eighth of the range, where that is less). Whatever the loss
    does, the share returned was tried and passed, and is the smallest of those. At most `most_tries`
    different shares are asked for. Losses are shares too: above 1 and NaN count as 1.
    """
    tolerance = min(tolerance, (1 - least) / 8)
    failed, passed = least, 1.0
    losses: dict[float, float] = {}
    slack = FOLLOWED
    while passed - failed > tolerance * (1 + 1e-9):
        width = passed - failed
        share = _next(failed, passed, losses, allowed, tolerance) if slack else (failed + passed) / 2
        if not failed < share < passed:
            break  # no number lies between
        loss = yield share
        losses[share] = min(loss, 1.0) if loss == loss else 1.0  # NaN: whatever it is, it is too much
        if loss <= allowed:
            passed = share
        else:
            failed = share
        slack -= slack > 0 and passed - failed > width / 2
    return passed if passed < 1 else None


def most_tries(least: float, tolerance: float = 0.02) -> int:
    """The most that smallest_share asks for; half of that is usual."""
    tolerance = min(tolerance, (1 - least) / 8)
    return FOLLOWED + math.ceil(math.log2((1 - least) / tolerance)) if least < 1 else 0


def _next(
    failed: float, passed: float, losses: dict[float, float], allowed: float, tolerance: float
) -> float:
    """Where the logarithm of the loss, a straight line between the ends of the bracket, crosses `allowed`.

    At least `tolerance` away from both ends, so that a good guess on either side ends the search.
    """
    middle = (failed + passed) / 2
    if passed - failed <= 2 * tolerance:
        return middle
    guess = _crossing(failed, passed, losses, allowed)
    return min(max(guess, failed + tolerance), passed - tolerance)


def _crossing(failed: float, passed: float, losses: dict[float, float], allowed: float) -> float:
    if not losses:
        return FIRST if 2 * failed < FIRST else (failed + passed) / 2
    above = _logarithm(losses[failed], allowed) if failed in losses else None
    below = _logarithm(losses[passed], allowed) if passed in losses else None
    if above is None:
        assert below is not None
        return passed + below / SLOPE
    if below is None:
        return failed + above / SLOPE
    return failed + (passed - failed) * (above / (above - below) if above > below else 0.5)


def _logarithm(loss: float, allowed: float) -> float:
    """ln(loss / allowed), above 0 for what lost too much."""
    smallest = max(FLOOR * allowed, 1e-6)
    return math.log(max(loss, smallest) / max(allowed, 1e-6))
