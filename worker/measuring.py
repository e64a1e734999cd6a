"""A network measured for plans, in their child: every layer's options, and what errors do to its answers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from basisconv.choice import Numbers
from basisconv.config import DecomposeConfig
from basisconv.errors import MethodError
from basisconv.measure import measure
from basisconv.outlook import Outlook, look_ahead
from basisconv.outputs import logits
from worker.baseline import mismatch
from worker.calibration import CALIBRATION_IMAGES, calibration_images, calibration_set
from worker.measure import answer, score
from worker.numbers import Known
from worker.pipeline import Report, open_work
from worker.synthetic import synthesise
from worker.work import Message, Said, Work, progress, told, warning

LEAST_IMAGES: Final = 64
# Of measuring: seconds for a CIFAR ResNet, less than a minute for ResNet-50.
WORK_MACS: Final = {"cpu": 1e12, "cuda": 3e13}
PASSES: Final = 4  # forward and twice as much backward for the outputs' metric, forward for the patches
MAKING_MACS: Final = 2e11  # of making images where none came: to choose by, fewer will do than to fit on
MAKING, LOOKING = 0.5, 0.1  # shares of the time, where images are made, and of the original's answers


def measure_network(task: Message, folder: Path, report: Report) -> Known:
    """Raises Problem or MethodError, the latter with public layer names.

    Of every layer and form, whatever the plan's target, forms and layers are: the next one may ask for them.
    """
    options = {"compression": {"basis": task["compression"]["basis"], "target": {"macs": 1.0}}}
    work = open_work(task | {"options": options}, folder)
    found = _Found()
    try:
        for said in _steps(work, found):
            if said["type"] == "warning":
                found.warnings.append({"code": said["code"], "detail": said["detail"]})
            elif said["type"] == "progress":
                report(said)
    except MethodError as error:
        if error.layer is not None:
            error.layer = work.named(error.layer)
        raise
    assert found.numbers is not None
    return Known(found.numbers, found.outlook, found.warnings)


class _Found:
    """What the steps leave behind."""

    def __init__(self) -> None:
        self.numbers: Numbers | None = None
        self.outlook: Outlook | None = None
        self.warnings: list[dict[str, str]] = []


def _steps(work: Work, found: _Found) -> Said:
    config = _config(work)
    begin = 0.0
    for notice in work.images.warnings if work.images is not None else ():
        yield warning(notice["code"], notice["detail"])
    if config.basis == "activations":
        if not work.with_images:
            yield from _scaled(synthesise(work, MAKING_MACS), 0.0, MAKING)
            begin = MAKING
        yield progress(begin, "Running the original")
        yield from _look(work, found)
        begin += LOOKING
    yield from _scaled(_measured(work, config, found), begin, 1.0)


def _scaled(steps: Iterator[Message], begin: float, end: float) -> Said:
    for said in steps:
        if said["type"] == "progress":
            yield said | {"fraction": begin + (end - begin) * said["fraction"]}
        else:
            yield said


def _config(work: Work) -> DecomposeConfig:
    basis: Any = work.options.compression.basis
    return DecomposeConfig(basis=basis, target_kind="macs", target_value=1.0, forms="auto")


def _images(work: Work) -> int:
    """How many images to measure on: as many as a job does, fewer for a large network."""
    passes = WORK_MACS.get(work.device.type, WORK_MACS["cpu"]) / max(1, work.costs_before.macs) / PASSES
    return int(min(CALIBRATION_IMAGES, max(LEAST_IMAGES, passes)))


def _measured(work: Work, config: DecomposeConfig, found: _Found) -> Said:
    steps = measure(work.original, work.example, config, calibration_images(work, _images(work)))
    measured = yield from told(steps, lambda step: progress(step.fraction, step.message))
    names = work.public
    found.numbers = Numbers(
        layers=[replace(s.layer, name=names.get(s.layer.name, s.layer.name)) for s in measured.sites],
        macs=measured.costs.macs,
        params=measured.costs.params,
        tables={names.get(path, path): table for path, table in measured.tables.items()},
        energies={names.get(path, path): values.tolist() for path, values in measured.energies.items()},
        measured=bool(measured.metrics),
    )


def _look(work: Work, found: _Found) -> Said:
    """The original on the images that it is measured on: is it fed rightly, how sure is it of its answers."""
    images = calibration_set(work, _images(work))
    assert images is not None
    work.tests = images
    work.reference = answers = answer(work.runner(work.original), images, work.folder, "original")
    if not answers.is_classifier:
        return
    scores = logits(torch.from_numpy(answers.outputs[0].reshape(answers.count, -1)))
    labels = None if images.y is None else images.y[: answers.count]
    found.outlook = look_ahead(scores.numpy(), labels)
    if labels is not None:
        accuracy = score(answers, answers, images, work.network.output_names).accuracy
        reason = None if accuracy is None else mismatch(work, accuracy)
        if reason is not None:
            yield warning("baseline_mismatch", reason)
