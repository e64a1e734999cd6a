"""The smallest network within the allowed loss of accuracy, judged on train images that are held back."""

import math
from collections.abc import Generator
from typing import Any

import torch
from torch import nn

from app.core.errors import DatasetMismatch
from basisconv.config import Progress
from basisconv.errors import InvalidRequest
from basisconv.foretell import accuracy_lost
from basisconv.smallest import Smallest, Try, smallest
from worker.calibration import calibration_images, held_back
from worker.measure import TestImages, answer
from worker.work import Message, Said, Work, metric, progress, told, warning

SEARCHING = 0.95  # of the stage's time, where the truncated network is judged as well


def check_search(work: Work) -> None:
    """Raise where there is no accuracy to lose, or nothing to judge it by."""
    assert work.images is not None
    assert work.reference is not None
    if not work.reference.is_classifier:
        raise InvalidRequest(
            "A target on the loss of accuracy needs a network that scores classes; this one's outputs are "
            "something else.",
            hint="Ask for a share of the operations; the report then tells how far the outputs are apart.",
        )
    if len(work.images.train_x) < 2:
        raise DatasetMismatch("The data set has 1 train image; a target on the loss of accuracy needs 2.")


def search(work: Work) -> Generator[Message, None, Smallest]:
    """Says what is tried, and returns the smallest network that passed."""
    assert work.measured is not None
    assert work.allowed_loss is not None
    held, allowed = held_back(work), work.allowed_loss
    yield from _coarse(len(held.x), allowed)
    yield progress(0.0, f"Running the original on {len(held.x):,} images held back")
    steps = smallest(
        work.original,
        work.example,
        work.config(),
        work.measured,
        _Judge(work, held),
        allowed,
        calibration_images(work),
    )
    work.held_back = len(held.x)
    return (yield from told(steps, _Teller().say))


class _Teller:
    """What is tried and how it went, in words; the events in between may be thinned out."""

    def __init__(self) -> None:
        self._tries: list[Try] = []

    def say(self, step: Progress | Try) -> Message:
        if isinstance(step, Try):
            self._tries.append(step)
            return metric("held_back_loss", len(self._tries), step.loss)
        return progress(SEARCHING * step.fraction, step.message + self._before())

    def _before(self) -> str:
        if not self._tries:
            return ""
        last = self._tries[-1]
        return f" (before: {last.share:.1%}, about {100 * last.loss:.2f} points would be lost)"


class _Judge:
    """What a network loses against the original on the images held back."""

    def __init__(self, work: Work, held: TestImages) -> None:
        self._work, self._held = work, held
        self._reference = self._scores(work.original, "held-back-original")
        self._labels = None if held.y is None else torch.from_numpy(held.y[: len(self._reference)])

    def __call__(self, module: nn.Module) -> float:
        return accuracy_lost(self._scores(module, "held-back-tried"), self._reference, self._labels)

    def _scores(self, module: Any, name: str) -> torch.Tensor:
        answers = answer(self._work.runner(module), self._held, self._work.folder, name)
        return torch.from_numpy(answers.outputs[0].reshape(answers.count, -1))


def _coarse(images: int, allowed: float) -> Said:
    """A warning where the images held back are too few to tell what is allowed from nothing."""
    error = math.sqrt(allowed / images)
    if error > allowed / 2:
        yield warning(
            "few_held_back_images",
            f"{images:,} train images are held back to judge by. They know a loss of {allowed:.2%} only to "
            f"about {error:.2%}; more train images make the choice surer.",
        )
