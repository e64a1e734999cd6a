"""Which learning rate: short runs from the same start, judged on held-back images.

The one whose network ends closest is taken. Too high a rate shakes a good start loose; too low a
one gets nowhere.
"""

from dataclasses import dataclass

from basisconv.finetune.loop import BatchNorm

SHARE = 0.13  # of the run's steps that all trials and their judgements may take; the epochs' are beside it
# Of one trial. After few steps even good rates look harmful, for Adam's first ones are all of one size:
# ResNet-20 at 50 % went from 0.55 to 0.62 in 9 steps at 6e-5, and from 0.59 to 0.56 in 39 at 1e-4.
LEAST_STEPS, MOST_STEPS = 30, 60
FACTOR = 3.0  # between two rates
RATES = 3


@dataclass(frozen=True)
class Trial:
    """What a short run used and how the network stood after it; `loss` as in Judgement."""

    learning_rate: float
    batch_norm: BatchNorm
    loss: float


def trial_steps(steps: int, judge_steps: float, trials: int) -> int:
    """The length of each of `trials`, 0 where there is no room; `judge_steps`: what a judgement costs."""
    length = int(SHARE * steps / trials - judge_steps)
    return min(length, MOST_STEPS) if length >= LEAST_STEPS else 0


def next_rate(default: float, tried: list[Trial]) -> float | None:
    """The rate to try next, None when enough is known: the default, a third, then on to the better side."""
    if not tried:
        return default
    if len(tried) == 1:
        return default / FACTOR
    if len(tried) == RATES:
        return None
    return default / FACTOR**2 if tried[1].loss < tried[0].loss else default * FACTOR


def best(tried: list[Trial]) -> Trial:
    return min(tried, key=lambda trial: trial.loss)
