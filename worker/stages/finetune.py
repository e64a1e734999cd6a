"""Recover: train the compressed network, batch by batch, and say how it goes."""

import warnings
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from basisconv.finetune import (
    FinetuneConfig,
    Item,
    Judged,
    Recovery,
    Step,
    StopWhen,
    TrainingData,
    Trial,
    hold_back,
)
from basisconv.scratch import ScratchTraining
from worker.calibration import random_order
from worker.data.materialize import Images
from worker.measure import answer, score, some_rows
from worker.stages.resumable import Training, run_kept, take_up
from worker.work import Said, Work, metric, progress, warning

POINTS: Final = 300  # of each curve
WATCHED_IMAGES: Final = 2_000  # for the accuracy curve; nothing is chosen by it
DEVICE_SHARE: Final = 0.4  # of the free GPU memory that images may take
TRIALS_SHARE: Final = 0.1  # of this stage's progress


def finetune(work: Work) -> Said:
    if work.search is not None and work.search.found is None:
        return  # the network is the original itself: nothing was lost that could be recovered
    run = _recovery(work)
    curve = _Curve(work, TRIALS_SHARE)

    def say(item: Item) -> Said:
        if isinstance(item, Step):
            yield from curve.step(item)
        elif isinstance(item, Judged):
            yield from _judged(item, work.options.training.objective)
        elif isinstance(item, Trial):
            yield from _tried(item, len(run.trials))

    def ends_epoch(item: Item) -> bool:
        return isinstance(item, Judged) or (not run.held_back and curve.ends_epoch(item))

    if not curve.take_up(run):
        yield from _accuracy(work, 0)
        yield progress(0.0, "Judging the truncated network on held-back images")
    yield from run_kept(work, run, say, curve.about, ends_epoch)
    work.module.eval()
    work.tuning = _report(run)
    yield from _warnings(run, work.options.training.objective)


def _recovery(work: Work) -> Recovery:
    assert work.images is not None
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
    data = training_data(work, work.images)
    rows, held = hold_back(torch.from_numpy(random_order(len(data))))
    if len(rows) < config.batch_size <= len(data):
        rows, held = torch.arange(len(data)), held[:0]  # a batch of a fixed size needs them all
    stop = StopWhen(work.options.limits.accuracy_drop, wanted.patience)
    return Recovery(work.module, work.original, data.subset(rows), data.subset(held), config, stop)


def follow(work: Work, run: ScratchTraining) -> Said:
    """Train to the end and say how it goes."""
    curve = _Curve(work)
    if not curve.take_up(run):
        yield from _accuracy(work, 0)
    yield from run_kept(work, run, curve.step, curve.about, curve.ends_epoch)
    work.module.eval()


class _Curve:
    """Points of the curves, each the mean of the losses since the last, and what is done of the stage."""

    def __init__(self, work: Work, begin: float = 0.0) -> None:
        self._work, self._begin = work, begin
        self._losses: list[float] = []

    def take_up(self, run: Training[object]) -> bool:
        """Go on where an earlier attempt was, if it left a checkpoint."""
        about = take_up(self._work, run)
        self._losses = [] if about is None else list(about["losses"])
        return about is not None

    def about(self) -> dict[str, object]:
        return {"losses": list(self._losses)}

    def ends_epoch(self, item: object) -> bool:
        return isinstance(item, Step) and item.step % (item.steps // item.epochs) == 0

    def step(self, step: Step) -> Said:
        self._losses.append(step.loss)
        if step.step % max(1, step.steps // POINTS) == 0 or step.step == step.steps:
            yield from _curves(step, sum(self._losses) / len(self._losses))
            self._losses.clear()
        share = self._begin + (1 - self._begin) * step.step / step.steps
        yield progress(share, f"Epoch {step.epoch} of {step.epochs}", epoch=step.epoch)
        if self.ends_epoch(step):
            yield from _accuracy(self._work, step.step)


def _curves(step: Step, loss: float) -> Said:
    yield metric("train_loss", step.step, loss)
    yield metric("learning_rate", step.step, step.learning_rate)
    yield metric("images_per_second", step.step, step.images_per_second)


def _judged(item: Judged, objective: str) -> Said:
    found = item.judgement
    name = "held_back_cross_entropy" if objective == "labels" else "held_back_divergence"
    values = {
        name: found.loss,
        "held_back_disagreement": found.disagreement,
        "held_back_accuracy_drop": found.accuracy_drop,
    }
    for key, value in values.items():
        if value is not None and value != float("inf"):
            yield metric(key, item.step, value)


def _tried(trial: Trial, number: int) -> Said:
    share = TRIALS_SHARE * min(number / 4, 1.0)
    yield progress(share, f"Tried a learning rate of {trial.learning_rate:.2g}")


def _report(run: Recovery) -> dict[str, object]:
    """api.md's `result.tuning`."""
    kept = run.kept
    return {
        "held_back_images": run.held_back,
        "epochs": run.epochs_done,
        "kept_epoch": None if kept is None else kept.epoch,
        "stopped": run.stopped,
        "learning_rate": run.learning_rate,
        "batch_norm": run.batch_norm,
        "batch_norm_reestimated": run.norms_reestimated,
        "loss_before": None if kept is None else run.judged[0].judgement.loss,
        "loss_kept": None if kept is None else kept.judgement.loss,
    }


def _warnings(run: Recovery, objective: str) -> Said:
    kept, epochs = run.kept, run.epochs_done
    if kept is None or kept.epoch == epochs:
        return
    done = "One epoch" if epochs == 1 else f"{epochs} epochs"
    what = "lower the loss" if objective == "labels" else "bring the network closer to the original"
    images = f"on {run.held_back:,} held-back images"
    if kept.epoch == 0:
        yield warning("tuning_did_not_help", f"{done} did not {what} {images}; the untuned network was kept.")
    else:
        yield warning(
            "earlier_epoch_kept",
            f"The epochs after number {kept.epoch} of {epochs} did not {what} {images}; the network after it "
            "was kept.",
        )


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
