"""How far a network is from what it should answer, judged on images that it is not trained on.

The original has usually seen these images and is sure of them, so that what it answers says less than it
would of new ones. A classifier is therefore judged by the distillation loss (T = 4) on the images as they are
and on the images with boxes of each other, half and half: new images stand between the two (docs/method.md
has the runs). At T = 1 near certain answers hide what changes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from basisconv.cost import evaluating
from basisconv.finetune.data import TrainingData
from basisconv.finetune.losses import Objective, distillation, label_loss
from basisconv.finetune.original import Original
from basisconv.finetune.steps import draws
from basisconv.outputs import is_classifier, output_tensors

SHARE = 0.1  # of the images is kept out of training,
MOST = 1000  # at most so many,
LEAST = 32  # and none where a tenth is fewer: such a judge would be a matter of luck
ANSWERS_BYTES = 100_000_000  # of the original's answers that are kept; larger ones are computed again

Answers = tuple[Tensor, ...]


@dataclass(frozen=True)
class Judgement:
    """Means over the held-back images; the smaller, the better.

    `loss`: the divergence from the original (the distillation loss), of a classifier that is distilled on
    images with boxes too; the cross-entropy for the objective "labels". `disagreement`: share of the images
    as they are whose top-1 is not the original's. `accuracy_drop`: the original's accuracy less this
    network's on them. The last two are None where there is no original, no classifier or no label.
    """

    loss: float
    disagreement: float | None
    accuracy_drop: float | None


@dataclass(frozen=True)
class _View:
    """A full batch, as networks of a fixed batch size need it; its first `valid` images count."""

    images: Tensor
    labels: Tensor | None
    answers: Answers
    valid: int
    boxed: bool


def hold_back(order: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to judge on, out of all rows in a random `order`.

    The last tenth of the order is held back, at most 1000 and none of fewer than 320. Let the order begin
    with the images that calibration has seen, so that they are not the judges.
    """
    held = min(MOST, int(SHARE * len(order)))
    if held < LEAST:
        return order.sort().values, order[:0]
    return order[:-held].sort().values, order[-held:].sort().values


class Judge:
    """Judges networks on all of `data`, each time on the same views of it, in batches of one size.

    `both_sides`: by the answers that Original gives then.
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        data: TrainingData,
        objective: Objective,
        batch_size: int,
        device: torch.device,
        both_sides: bool = False,
    ) -> None:
        self._original, self._data, self._objective = Original(teacher, both_sides), data, objective
        self._batch, self._device = batch_size, device
        self._answers: list[Answers] | None = None

    def __len__(self) -> int:
        return len(self._data)

    def __call__(self, student: nn.Module) -> Judgement:
        """In eval mode and float32, without gradients; the student's own mode is put back."""
        tally = _Tally()
        for view in self._views():
            with evaluating(student):
                outputs = output_tensors(student(view.images))
            tally.add(self._objective, view, outputs)
        return tally.judgement()

    def _views(self) -> Iterator[_View]:
        kept: list[Answers] = []
        for boxed in (False, True):
            for start in range(0, len(self._data), self._batch):
                rows = torch.arange(start, start + self._batch) % len(self._data)
                images, labels = self._data.batch(rows, self._device, "none", draws(0, start), boxed)
                kept.append(self._answers[len(kept)] if self._answers else self._original(images))
                yield _View(images, labels, kept[-1], min(self._batch, len(self._data) - start), boxed)
            if self._objective != "distill" or not is_classifier(kept[0]):
                break
        if sum(z.nbytes for answers in kept for z in answers) <= ANSWERS_BYTES:
            self._answers = kept


class _Tally:
    def __init__(self) -> None:
        self._images = self._compared = self._labelled = 0
        self._loss = self._other = self._lost = 0.0

    def add(self, objective: Objective, view: _View, outputs: Sequence[Tensor]) -> None:
        n = view.valid
        found, wanted = _first(outputs, view), _first(view.answers, view)
        labels = None if view.labels is None else view.labels[:n]
        loss = label_loss(found, labels) if objective == "labels" else distillation(found, wanted)
        self._images += n
        self._loss += n * float(loss)
        if view.boxed or not wanted or not is_classifier(wanted):
            return
        mine, theirs = found[0].flatten(1).argmax(1), wanted[0].flatten(1).argmax(1)
        self._compared += n
        self._other += float((mine != theirs).sum())
        if labels is not None:
            self._labelled += n
            self._lost += float((theirs == labels).sum()) - float((mine == labels).sum())

    def judgement(self) -> Judgement:
        loss = self._loss / self._images
        return Judgement(
            loss if math.isfinite(loss) else math.inf,
            self._other / self._compared if self._compared else None,
            self._lost / self._labelled if self._labelled else None,
        )


def _first(outputs: Sequence[Tensor], view: _View) -> list[Tensor]:
    """The counting images' part of outputs that have a row for each; others as they are."""
    return [z[: view.valid] if z.dim() and len(z) == len(view.images) else z for z in outputs]
