"""What errors of a size would do to a classifier's answers, foretold from the original's own scores.

Shapes: N images, K classes. Needs no torch.

The harm that a plan counts is the outputs' squared error, to first order. How many answers it changes
depends on how far ahead of the others the best score is: scores that are nearly equal give way to little.
So the original's scores are disturbed at random, evenly over the classes, by errors of every size, and the
answers counted. Against labels this says what accuracy is lost; of images that the network was trained on
it says too much, as foretell.py explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ERRORS: Final = np.geomspace(1e-5, 4, 40)  # of the scores' own square
DRAWS: Final = 4  # disturbances of an image
VALUES: Final = 20_000_000  # disturbed scores at a time

Scores = NDArray[np.float64]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Outlook:
    """By squared error, as a share of the scores' own square: answers that change, and accuracy lost.

    `lost` is None where there were no labels.
    """

    errors: Sequence[float]
    changed: Sequence[float]
    lost: Sequence[float] | None

    def answers_changed(self, error: float) -> float:
        return _at(error, self.errors, self.changed)

    def accuracy_lost(self, error: float) -> float | None:
        return None if self.lost is None else _at(error, self.errors, self.lost)


def look_ahead(scores_NK: NDArray[np.floating], labels_N: Labels | None, seed: int = 0) -> Outlook:
    """`scores_NK`: the original's, before a softmax. Equal arguments give equal outlooks."""
    z_NK = scores_NK.astype(np.float64)
    z_NK = z_NK - z_NK.mean(1, keepdims=True)
    size = float(np.square(z_NK).sum(1).mean())
    some = max(1, VALUES // (DRAWS * z_NK.shape[1]))
    rows = [slice(at, at + some) for at in range(0, len(z_NK), some)]
    parts = [
        _disturbed(z_NK[part], None if labels_N is None else labels_N[part], size, seed + part.start)
        for part in rows
    ]
    weights = [len(z_NK[part]) for part in rows]
    changed_E, lost_E = (np.average(values, axis=0, weights=weights) for values in zip(*parts, strict=True))
    lost = None if labels_N is None else [float(value) for value in lost_E]
    return Outlook(ERRORS.tolist(), [float(value) for value in changed_E], lost)


def _disturbed(z_NK: Scores, labels_N: Labels | None, size: float, seed: int) -> tuple[Scores, Scores]:
    """Per error: the share of changed answers, and of right ones lost less those won (0 without labels)."""
    count, classes = z_NK.shape
    noise_DNK = np.random.default_rng(seed).standard_normal((DRAWS, count, classes))
    before_N = z_NK.argmax(1)
    changed, lost = np.zeros(len(ERRORS)), np.zeros(len(ERRORS))
    for at, error in enumerate(ERRORS):
        after_DN = (z_NK + np.sqrt(error * size / (classes - 1)) * noise_DNK).argmax(2)
        changed[at] = (after_DN != before_N).mean()
        if labels_N is not None:
            lost[at] = (before_N == labels_N).mean() - (after_DN == labels_N).mean()
    return changed, lost


def _at(error: float, errors: Sequence[float], values: Sequence[float]) -> float:
    """Between two errors by the logarithm; towards no error down to nothing."""
    if error <= errors[0]:
        return values[0] * max(error, 0.0) / errors[0]
    return float(np.interp(np.log(error), np.log(errors), values))
