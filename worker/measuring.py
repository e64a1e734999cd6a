"""A network measured for plans, in their child: every layer's options, and what errors do to its answers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from basisconv.choice import Numbers
from basisconv.config import DecomposeConfig
from basisconv.errors import MethodError
from basisconv.layers import Layer
from basisconv.measure import measure
from basisconv.options import Measured
from basisconv.outlook import Outlook, look_ahead
from basisconv.outputs import logits
from worker.baseline import mismatch
from worker.calibration import CALIBRATION_IMAGES, calibration_images, calibration_set
from worker.measure import answer, score, some_rows
from worker.numbers import Known
from worker.pipeline import Report, open_work
from worker.synthetic import synthesise
from worker.work import Message, Said, Work, progress, told, warning

LEAST_IMAGES: Final = 32
# Of measuring: seconds for a CIFAR ResNet, less than a minute for ResNet-50.
WORK_MACS: Final = {"cpu": 5e11, "cuda": 3e13}
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
    seen = calibration_set(work, _images(work))
    steps = measure(work.original, work.example, config, calibration_images(work, _images(work)))
    measured = yield from told(steps, lambda step: progress(step.fraction, step.message))
    yield from _few(measured, 0 if seen is None else len(seen.x))
    names = work.public
    found.numbers = Numbers(
        layers=[replace(s.layer, name=names.get(s.layer.name, s.layer.name)) for s in measured.sites],
        macs=measured.costs.macs,
        params=measured.costs.params,
        tables={names.get(path, path): table for path, table in measured.tables.items()},
        energies={names.get(path, path): values.tolist() for path, values in measured.energies.items()},
        measured=bool(measured.metrics),
    )


def _few(measured: Measured, images: int) -> Said:
    """Say where a layer's fit can learn the images by heart: its harm on them then says too little."""
    wide = [
        site.layer
        for site in measured.sites
        if site.layer.name in measured.metrics and site.layer.kind == "linear"
    ]
    wide = [layer for layer in wide if images * _positions(layer) < 2 * layer.in_channels]
    if not wide:
        return
    most = max(layer.in_channels for layer in wide)
    many = "1 linear layer sees" if len(wide) == 1 else f"{len(wide)} linear layers see"
    yield warning(
        "few_images",
        f"{many} up to {most:,} inputs, measured on {images:,} images: a fit can learn so few by heart, so "
        "expect more errors than are foretold. More train images help; so does leaving such layers out.",
    )


def _positions(layer: Layer) -> int:
    return layer.macs // (layer.in_channels * layer.out_channels)


def _look(work: Work, found: _Found) -> Said:
    """The original on validation images: is it fed rightly, how sure is it of what is new to it.

    It alone is run on them, so they still choose nothing between networks (docs/method.md).
    """
    rows = some_rows(len(work.tests.x), _images(work))
    labels = None if work.tests.y is None else work.tests.y[rows]
    work.tests = images = replace(work.tests, x=work.tests.x[rows], y=labels)
    work.reference = answers = answer(work.runner(work.original), images, work.folder, "original")
    if not answers.is_classifier:
        return
    scores = logits(torch.from_numpy(answers.outputs[0].reshape(answers.count, -1)))
    labels = None if labels is None else labels[: answers.count]
    found.outlook = look_ahead(scores.numpy(), labels)
    accuracy = score(answers, answers, images, work.network.output_names).accuracy
    reason = None if accuracy is None else mismatch(work, accuracy)
    if reason is not None:
        yield warning("baseline_mismatch", reason)
