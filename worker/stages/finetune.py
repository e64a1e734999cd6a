"""Recover: train the compressed network, batch by batch, and say how it goes."""

import warnings
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from basisconv.finetune import Finetune, FinetuneConfig, Step, TrainingData
from basisconv.scratch import ScratchTraining
from worker.data.materialize import Images
from worker.measure import answer, score, some_rows
from worker.work import Said, Work, metric, progress

POINTS: Final = 300  # of each curve
WATCHED_IMAGES: Final = 2_000  # for the accuracy curve; nothing is chosen by it
DEVICE_SHARE: Final = 0.4  # of the free GPU memory that images may take


def finetune(work: Work) -> Said:
    assert work.images is not None
    if work.search is not None and work.search.found is None:
        return  # the network is the original itself: nothing was lost that could be recovered
    wanted = work.options.training
    config = FinetuneConfig(
        epochs=wanted.epochs,
        update=wanted.update,
        objective=wanted.objective,
        batch_size=work.network.module_batch or wanted.batch_size,
        learning_rate=wanted.learning_rate,
        augment=wanted.augment,
        seed=wanted.seed,
    )
    run = Finetune(work.module, work.original, training_data(work, work.images), config)
    yield from follow(work, run)


def follow(work: Work, run: Finetune | ScratchTraining) -> Said:
    """Train to the end and say how it goes."""
    yield from _accuracy(work, 0)
    every = max(1, run.steps // POINTS)
    losses: list[float] = []
    for step in run:
        losses.append(step.loss)
        if step.step % every == 0 or step.step == run.steps:
            yield from _curves(step, sum(losses) / len(losses))
            losses.clear()
        message = f"Epoch {step.epoch} of {step.epochs}"
        yield progress(step.step / run.steps, message, epoch=step.epoch)
        if step.step % (run.steps // step.epochs) == 0:
            yield from _accuracy(work, step.step)
    work.module.eval()


def _curves(step: Step, loss: float) -> Said:
    yield metric("train_loss", step.step, loss)
    yield metric("learning_rate", step.step, step.learning_rate)
    yield metric("images_per_second", step.step, step.images_per_second)


def _accuracy(work: Work, step: int) -> Said:
    """Accuracy (or agreement, without labels) on some of the validation images, for the curve."""
    assert work.reference is not None
    rows = some_rows(work.reference.count, WATCHED_IMAGES)
    labels = None if work.tests.y is None else work.tests.y[rows]
    some = replace(work.tests, x=work.tests.x[rows], y=labels)
    answers = answer(work.runner(work.module), some, work.folder, "watched")
    found = score(answers, work.reference.at(rows), some, work.network.output_names)
    if found.accuracy is not None:
        yield metric("accuracy", step, found.accuracy)
    elif found.agreement is not None:
        yield metric("agreement", step, found.agreement)
    elif found.agreement_db:
        yield metric("agreement_db", step, min(found.agreement_db.values()))


def training_data(work: Work, images: Images) -> TrainingData:
    spec = work.spec
    labels = None if images.train_y is None else torch.from_numpy(images.train_y).long()
    return TrainingData(
        images=_on_device(images, work.device),
        labels=labels,
        scale=spec.scale,
        mean=spec.mean,
        std=spec.std,
    )


def _on_device(images: Images, device: torch.device) -> Tensor:
    """All train images where the network is, if they fit well; else where they lie, behind their map."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the map is read-only, and nobody writes to it
        pixels = torch.from_numpy(images.train_x)
    if device.type != "cuda":
        return pixels
    free, _ = torch.cuda.mem_get_info(device)
    return pixels.to(device) if pixels.nbytes < DEVICE_SHARE * free else pixels
