"""A network that answers at chance level is nearly always fed wrongly: find out how, and say so."""

import math
from dataclasses import replace
from typing import Final

import numpy as np

from worker.data.spec import InputSpec
from worker.measure import TestImages, answer, score, some_rows
from worker.work import Work

TRIED_IMAGES: Final = 256
CLEARLY_BETTER: Final = 3.0  # times the accuracy as it is
IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LEAST_PER_CLASS: Final = 5  # images: with fewer, any confusion looks like an order


def mismatch(work: Work, accuracy: float) -> str | None:
    """The likely cause in a sentence with numbers, or None when the accuracy is clearly above chance."""
    assert work.reference is not None
    assert work.tests.y is not None
    labels = work.tests.y[: work.reference.count]
    level = chance(labels)
    if accuracy > level:
        return None
    found = f"The original answers {accuracy:.1%} of the {len(labels):,} validation images right, which is "
    found += f"chance level (up to {level:.1%} here)."
    ordered = _with_best_order(work.reference.top1, labels)
    if ordered is not None and ordered > max(0.5, 2 * level):
        return (
            f"{found} With the classes in another order it would be {ordered:.1%}: the class order is the "
            "likely cause. Map folders to the network's indices with `classes`."
        )
    better = _better_input(work, max(accuracy * CLEARLY_BETTER, level))
    if better is not None:
        return f"{found} {better}"
    return (
        f"{found} The likely causes are the normalisation (`input.scale`, `mean`, `std`) and the order of "
        "the classes (`classes`)."
    )


def chance(labels: np.ndarray) -> float:
    """What guessing reaches: the largest class's share and three standard deviations, yet not near 1."""
    share = float(np.bincount(labels).max() / len(labels))
    return share + min(3 * math.sqrt(share * (1 - share) / len(labels)), (1 - share) / 2)


def _with_best_order(top1: np.ndarray, labels: np.ndarray) -> float | None:
    """The accuracy if each answer meant the class that it mostly stands beside."""
    classes = int(max(top1.max(), labels.max())) + 1
    if len(labels) < LEAST_PER_CLASS * classes:
        return None
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (top1, labels), 1)
    return float(table.max(1).sum() / len(labels))


def _better_input(work: Work, least: float) -> str | None:
    """Try the usual normalisations on some images; `least` is what one of them must reach."""
    if work.tests.x.dtype != np.uint8 or work.tests.y is None:
        return None
    rows = some_rows(len(work.tests.x), TRIED_IMAGES)
    some = replace(work.tests, x=work.tests.x[rows], y=work.tests.y[rows])
    best, name = least, None
    for label, spec in _usual(work.spec):
        tried = _accuracy(work, some, spec)
        if tried > best:
            best, name = tried, label
    if name is None:
        return None
    return f"With {name} it answers {best:.1%} of {len(rows)} images right: the normalisation is wrong."


def _accuracy(work: Work, some: TestImages, spec: InputSpec) -> float:
    answers = answer(work.runner(work.original), replace(some, spec=spec), work.folder, "tried")
    return score(answers, answers, some, work.network.output_names).accuracy or 0.0


def _usual(spec: InputSpec) -> list[tuple[str, InputSpec]]:
    zero, one = (0.0,) * spec.channels, (1.0,) * spec.channels
    half = (0.5,) * spec.channels
    found = [
        ("scale 1, mean 0, std 1 (raw pixels)", replace(spec, scale=1.0, mean=zero, std=one)),
        ("scale 255, mean 0, std 1", replace(spec, scale=255.0, mean=zero, std=one)),
        ("scale 255, mean 0.5, std 0.5", replace(spec, scale=255.0, mean=half, std=half)),
        ("scale 255 and the mean and std given", replace(spec, scale=255.0)),
    ]
    if spec.channels == 3:
        mean, std = IMAGENET
        found.append(
            ("scale 255 and ImageNet's mean and std", replace(spec, scale=255.0, mean=mean, std=std))
        )
    return [(label, other) for label, other in found if other != spec]
