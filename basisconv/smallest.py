"""The smallest network within an allowed loss: one measurement, then a copy fitted for every share tried."""

import copy
from collections.abc import Callable
from collections.abc import Generator as Steps
from dataclasses import dataclass, replace

from torch import Tensor, nn

from basisconv.calibrate import Images
from basisconv.config import DecomposeConfig, Decomposition, LayerOutcome, Progress
from basisconv.front_to_back import fit_
from basisconv.options import Measured, Option
from basisconv.plan import least_share, plan
from basisconv.ranks.accuracy import Search, most_tries, smallest_share
from basisconv.reasons import Reason

Judge = Callable[[nn.Module], float]  # what a network loses against the original, on images held back


@dataclass(frozen=True)
class Try:
    """One network that was fitted and judged: what it was allowed, what it keeps, and what it lost."""

    share: float
    macs: int
    loss: float
    passed: bool


@dataclass(frozen=True)
class Smallest:
    """The smallest network that passed, in the order of the search all that were tried.

    Where none passed, `module` is a copy of the original, every layer of `decomposition` stays, and
    `found` is None.
    """

    module: nn.Module
    decomposition: Decomposition
    tries: tuple[Try, ...]
    found: Try | None


def smallest(
    module: nn.Module,
    example: Tensor,
    config: DecomposeConfig,
    measured: Measured,
    judge: Judge,
    allowed: float,
    images: Images | None = None,
) -> Steps[Progress | Try, None, Smallest]:
    """Yields progress and each Try, and returns the network with the fewest operations within `allowed`.

    `module`, which stays as it is, was measured with this `config`: target macs of 1. `judge` is called with
    each candidate and should see images that were not calibrated on. Equal arguments give equal networks.

    Raises MalformedWeights, if a layer's decomposition fails.
    """
    least = least_share(measured.sites, measured.costs, config)
    search, most = smallest_share(allowed, least), most_tries(least)
    tries: list[Try] = []
    best: tuple[nn.Module, Decomposition, Try] | None = None
    share = next(search, None)
    while share is not None:
        candidate = copy.deepcopy(module)
        planned = plan(measured, replace(config, target_value=share))
        steps = fit_(candidate, example, measured, planned, images)
        fitted = yield from _placed(steps, share, len(tries) / most, 1 / most)
        loss = judge(candidate)
        tries.append(Try(share, fitted.costs.macs, loss, loss <= allowed))
        yield tries[-1]
        if loss <= allowed:
            best = (candidate, fitted, tries[-1])  # what passes is always smaller than what passed before
        share = _answered(search, loss)
    if best is None:
        return Smallest(copy.deepcopy(module), _as_it_is(measured, config), tuple(tries), None)
    return Smallest(best[0], best[1], tuple(tries), best[2])


def _placed(
    steps: Steps[Progress, None, Decomposition], share: float, begin: float, part: float
) -> Steps[Progress, None, Decomposition]:
    """The steps of one try as a part of the whole stage."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            fitted: Decomposition = end.value
            return fitted
        message = f"Trying {share:.1%} of the operations"
        yield replace(step, fraction=begin + part * step.fraction, message=message)


def _answered(search: Search, loss: float) -> float | None:
    try:
        return search.send(loss)
    except StopIteration:
        return None


def _as_it_is(measured: Measured, config: DecomposeConfig) -> Decomposition:
    """Every layer stays, and why."""
    planned = plan(measured, config)
    outcomes = [
        LayerOutcome(path, "dense", None, False, _why(choice.option, choice.reason), None)
        for path, choice in planned.items()
    ]
    return Decomposition(outcomes, measured.costs)


def _why(option: Option, reason: str | None) -> str | None:
    may_change = option.form != "dense" or reason == Reason.WITHIN_BUDGET
    return Reason.WITHIN_ACCURACY.value if may_change else reason
