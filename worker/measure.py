"""What networks answer on the test images, and how alike and how right the answers are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from app.core.errors import Internal
from basisconv.outputs import is_classifier
from worker.data.preprocess import batches
from worker.data.spec import InputSpec
from worker.runners import Runner

Array = npt.NDArray[Any]
MAP_BYTES: Final = 200_000_000  # larger answers lie in a file
MOST_BYTES: Final = 4_000_000_000  # of one network's answers; dense outputs are judged on fewer images
LEAST_IMAGES: Final = 32
BATCH_BYTES: Final = 50_000_000  # of a batch's floats: about 80 images of 224 pixels, at most 256
EQUAL_DB: Final = 150.0  # beyond float32's own resolution: as good as equal


@dataclass(frozen=True)
class TestImages:
    """The validation images of a job, or random ones where there is no data set."""

    x: Array
    y: Array | None
    spec: InputSpec
    real: bool


@dataclass(frozen=True)
class Answers:
    """A network's outputs for the first `count` images, one array per output."""

    outputs: tuple[Array, ...]
    count: int

    @property
    def is_classifier(self) -> bool:
        """One output of at least two scores per image; the method's own rule."""
        return is_classifier([torch.from_numpy(output[:1]) for output in self.outputs])

    @cached_property
    def largest(self) -> float:
        """The largest number among the outputs."""
        parts = (part[i : i + 256] for part in self.outputs for i in range(0, self.count, 256))
        return max(float(np.abs(part).max(initial=0.0)) for part in parts)

    def at(self, rows: Array) -> "Answers":
        """The answers for some of the images."""
        return Answers(tuple(output[rows] for output in self.outputs), len(rows))

    @property
    def top1(self) -> Array:
        scores = self.outputs[0].reshape(self.count, -1)
        return np.concatenate([scores[i : i + 4096].argmax(1) for i in range(0, self.count, 4096)])


@dataclass(frozen=True)
class Scores:
    accuracy: float | None
    agreement: float | None
    agreement_db: dict[str, float] | None

    def document(self) -> dict[str, Any]:
        """The members of api.md's result; `agreement_db` only where it stands for the others."""
        body: dict[str, Any] = {"accuracy": self.accuracy, "agreement": self.agreement}
        return body if self.agreement_db is None else body | {"agreement_db": self.agreement_db}


def some_rows(count: int, most: int, seed: int = 0) -> Array:
    """At most `most` of `count` rows, always the same, in their own order."""
    rows = np.random.RandomState(seed).permutation(count)[:most]
    return np.sort(rows)


def batch_size(image_values: int) -> int:
    return max(1, min(256, BATCH_BYTES // (4 * image_values)))


def answer(
    runner: Runner,
    images: TestImages,
    folder: Path,
    name: str,
    said: Callable[[float], None] = lambda _: None,
    most: int | None = None,
) -> Answers:
    """Run a network over the images, in their order. `said` hears the share that is done."""
    spec = images.spec
    size = runner.batch or batch_size(spec.channels * spec.height * spec.width)
    count = len(images.x) if most is None else min(most, len(images.x))
    outputs: list[Array] = []
    position = 0
    for batch in batches(
        images.x[:count], None, spec, batch_size=size, device=runner.device, fixed=runner.batch is not None
    ):
        parts = [_by_image(part, len(batch.x)) for part in runner.call(batch.x)]
        if not outputs:
            count = _affordable(parts, count)
            outputs = [_room(part, count, folder / f"{name}-{i}.answers") for i, part in enumerate(parts)]
        end = min(position + batch.valid, count)
        for kept, part in zip(outputs, parts, strict=True):
            kept[position:end] = part[: end - position]
        position = end
        said(position / count)
        if position == count:
            break
    return Answers(tuple(outputs), count)


def _by_image(output: Array, images: int) -> Array:
    """One row per image, also where a network gives several rows for each."""
    if output.ndim and len(output) == images:
        return output
    if output.ndim == 0 or len(output) % images:
        raise Internal(f"An output of shape {output.shape} does not follow a batch of {images} images.")
    return output.reshape(images, len(output) // images, *output.shape[1:])


def _affordable(parts: Sequence[Array], count: int) -> int:
    per_image = sum(part[0].size * 4 for part in parts)
    return min(count, max(LEAST_IMAGES, MOST_BYTES // max(per_image, 1)))


def _room(part: Array, count: int, path: Path) -> Array:
    shape = (count, *part.shape[1:])
    if math.prod(shape) * 4 <= MAP_BYTES:
        return np.empty(shape, np.float32)
    return np.memmap(path, np.float32, "w+", shape=shape)


def score(answers: Answers, reference: Answers, images: TestImages, names: Sequence[str]) -> Scores:
    """Accuracy where there are labels and classes; agreement with the original wherever there are images."""
    if not images.real:
        return Scores(None, None, None)
    found = alike(answers, reference, names)
    if images.y is None or not reference.is_classifier:
        return found
    return replace(found, accuracy=float((answers.top1 == images.y[: answers.count]).mean()))


def alike(answers: Answers, reference: Answers, names: Sequence[str]) -> Scores:
    """Agreement with the original: the same top-1, or decibels per output where there are no classes."""
    if not reference.is_classifier:
        return Scores(None, None, _decibels(answers, reference, names))
    return Scores(None, float((answers.top1 == reference.top1[: answers.count]).mean()), None)


def _decibels(answers: Answers, reference: Answers, names: Sequence[str]) -> dict[str, float]:
    found = {}
    for i, (mine, theirs) in enumerate(zip(answers.outputs, reference.outputs, strict=True)):
        signal = error = 0.0
        for j in range(0, answers.count, 64):
            end = min(j + 64, answers.count)  # of the last part
            y = theirs[j:end].astype(np.float64)
            signal += float(np.square(y).sum())
            error += float(np.square(mine[j:end] - y).sum())
        found[names[i] if i < len(names) else str(i)] = _ratio_db(signal, error)
    return found


def _ratio_db(signal: float, error: float) -> float:
    if error <= 0 or signal / error >= 10 ** (EQUAL_DB / 10):
        return EQUAL_DB
    return round(10 * math.log10(max(signal, 1e-300) / error), 3)


@dataclass(frozen=True)
class Difference:
    """How far two networks' answers are apart, and how large the answers are."""

    max_abs: float
    scale: float
    finite: bool


def difference(answers: Answers, expected: Answers) -> Difference:
    largest = scale = 0.0
    finite = len(answers.outputs) == len(expected.outputs)
    for mine, theirs in zip(answers.outputs, expected.outputs, strict=False):
        if mine.shape[1:] != theirs.shape[1:]:
            return Difference(math.inf, 0.0, finite=False)
        for j in range(0, answers.count, 256):
            a, b = mine[j : j + 256], theirs[j : j + 256][: len(mine[j : j + 256])]
            finite = finite and bool(np.isfinite(a).all())
            largest = max(largest, float(np.abs(a - b).max(initial=0.0)))
            scale = max(scale, float(np.abs(b).max(initial=0.0)))
    return Difference(largest, scale, finite and math.isfinite(largest))
