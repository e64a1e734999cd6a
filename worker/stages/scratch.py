"""The first three stages of the kind `train`: look at the structure, draw the filters, learn from labels."""

from typing import Any

from basisconv.errors import InvalidRequest
from basisconv.scratch import ScratchConfig, ScratchTraining, TrainConfig, check, randomize_
from worker.calibration import calibration_images
from worker.measure import answer, score
from worker.stages.finetune import follow, training_data
from worker.work import Said, Work, metric, progress


def look(work: Work) -> Said:
    """The network as it was uploaded: can its structure be trained so, and what does it answer as it is."""
    check(work.original, work.example, scratch_config(work))
    yield progress(0.05, "Running the network as it came on the validation images")
    said: list[float] = []
    work.reference = answer(work.runner(work.original), work.tests, work.folder, "reference", said.append)
    if not work.reference.is_classifier:
        raise InvalidRequest("training from scratch needs a classifier: one output with a score per class")
    found = score(work.reference, work.reference, work.tests, work.network.output_names)
    if found.accuracy is not None:
        yield metric("original_accuracy", 0, found.accuracy)
    yield progress(1.0)


def restructure(work: Work) -> Said:
    """Fixed random filters and fresh weights, and what the untrained network answers: chance."""
    yield progress(0.0, "Drawing the filters")
    images = calibration_images(work)
    some = None if images is None else next(images())
    work.decomposition = randomize_(work.module, work.example, scratch_config(work), some)
    yield progress(0.5, "Running the untrained network on the validation images")
    answers = answer(work.runner(work.module), work.tests, work.folder, "truncated")
    work.truncated = work.scored(answers)
    yield progress(1.0)


def train(work: Work) -> Said:
    assert work.images is not None
    wanted = work.options.training
    config = TrainConfig(
        epochs=wanted.epochs,
        batch_size=work.network.module_batch or wanted.batch_size,
        learning_rate=wanted.learning_rate,
        augment=wanted.augment,
        seed=wanted.seed,
    )
    yield from follow(work, ScratchTraining(work.module, training_data(work, work.images), config))


def scratch_config(work: Work) -> ScratchConfig:
    """The request in the method's own terms: submodule paths instead of public names."""
    wanted = work.options.compression
    target, limit = wanted.target, work.options.limits.learnable_params
    value: Any = target.value
    asked: dict[str, Any] = {target.kind: value}
    if isinstance(value, dict):
        asked = {"ranks": {work.network.layers[name]: asked.rank for name, asked in value.items()}}
    elif target.kind in ("macs", "params"):
        asked = {"budgets": {target.kind: value} | ({} if limit is None else {"learnable_params": limit})}
    return ScratchConfig(
        **asked,
        include=work.open_layers(),
        rank_multiple=wanted.rank_multiple,
        seed=work.options.training.seed,
    )
