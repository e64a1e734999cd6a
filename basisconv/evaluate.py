"""How well a network answers: against labels, and against the original.

Works on any outputs, so that the same figures come from torch and from a file run elsewhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from basisconv.cost import evaluating
from basisconv.outputs import is_classifier, output_tensors

MOST_DB = 200.0  # identical outputs would be infinitely close; float32 rounding alone is at 130 to 150


@dataclass(frozen=True)
class Scores:
    """`accuracy`: share of correct top-1, None without labels or for networks that are no classifiers.

    `agreement`: share of equal top-1 with the reference, None for others. `agreement_db`: per output
    20 log10(|y| / |y - y^|) over all examples, at most 200. Both None without a reference.
    """

    examples: int
    accuracy: float | None
    agreement: float | None
    agreement_db: tuple[float, ...] | None


class Tally:
    """Adds up batches of outputs; `classifier` is told by the first batch unless given."""

    def __init__(self, classifier: bool | None = None) -> None:
        self._classifier = classifier
        self._examples = self._labelled = self._correct = self._compared = self._equal = 0
        self._energy: list[float] = []
        self._error: list[float] = []

    def add(
        self,
        outputs: Sequence[Tensor],
        labels: Tensor | None = None,
        reference: Sequence[Tensor] | None = None,
    ) -> None:
        """One batch: the network's outputs, labels (n,) int64, and the original's outputs for the same."""
        if self._classifier is None:
            self._classifier = is_classifier(outputs)
        self._examples += len(outputs[0])
        if self._classifier and labels is not None:
            self._labelled += len(labels)
            self._correct += int((_top(outputs[0]) == labels.to(outputs[0].device)).sum())
        if reference is not None:
            self._compare(outputs, reference)

    def _compare(self, outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
        self._compared += len(outputs[0])
        if self._classifier:
            self._equal += int((_top(outputs[0]) == _top(reference[0])).sum())
        self._energy = self._energy or [0.0] * len(reference)
        self._error = self._error or [0.0] * len(reference)
        for i, (y_hat, y) in enumerate(zip(outputs, reference, strict=True)):
            self._energy[i] += float(y.double().square().sum())
            self._error[i] += float((y.double() - y_hat.double()).square().sum())

    def scores(self) -> Scores:
        compared = self._compared > 0
        decibels = tuple(_decibels(y, e) for y, e in zip(self._energy, self._error, strict=True))
        return Scores(
            examples=self._examples,
            accuracy=self._correct / self._labelled if self._labelled else None,
            agreement=self._equal / self._compared if compared and self._classifier else None,
            agreement_db=decibels if compared else None,
        )


def evaluate(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    reference: nn.Module | None = None,
    classifier: bool | None = None,
) -> Scores:
    """Scores of `module` on (images, labels or None) batches, beside `reference`, the original, if given.

    Both run in eval mode and without gradients; their own modes are put back.
    """
    tally = Tally(classifier)
    for images, labels in batches:
        tally.add(run(module, images), labels, None if reference is None else run(reference, images))
    return tally.scores()


def run(module: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """The floating-point outputs of one batch, in eval mode."""
    with evaluating(module):
        outputs: Any = module(images)
    return output_tensors(outputs)


def _top(scores: Tensor) -> Tensor:
    return scores.flatten(1).argmax(1)


def _decibels(energy: float, error: float) -> float:
    if not math.isfinite(error):
        return -MOST_DB
    if error <= 0:
        return MOST_DB
    return max(-MOST_DB, min(MOST_DB, 10 * math.log10(energy / error))) if energy > 0 else -MOST_DB
