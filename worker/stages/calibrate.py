"""Look at the original: can the target be met, what does it answer, what do its layers respond."""

from basisconv.config import DecomposeConfig
from basisconv.latency import time_network
from basisconv.measure import check, measure
from worker.baseline import mismatch
from worker.calibration import calibration_images
from worker.measure import answer, score
from worker.search import check_search
from worker.synthetic import synthesise
from worker.timing import timer_of
from worker.work import Said, Work, metric, progress, told, warning

MAKING_SHARE = 0.6  # of the stage, where images must be made first
TIMED = 0.2  # of the stage, where layers are timed first


def calibrate(work: Work) -> Said:
    """Images where there are none, the original's answers, then the measuring half of the decomposition."""
    config = work.config()
    check(work.original, work.example, config)
    begin = 0.0
    if config.target_kind == "latency":  # first: what cannot be met is refused before the images are used
        begin = TIMED
        yield from _scaled(_timed(work, config), 0.0, begin)
    if config.basis == "activations" and not work.with_images:
        made = begin + MAKING_SHARE * (1 - begin)
        yield from _scaled(synthesise(work), begin, made)
        begin = made
    yield from _scaled(_answers(work), begin, begin + 0.3 * (1 - begin))
    yield from _scaled(_measured(work, config), begin + 0.3 * (1 - begin), 1.0)


def _scaled(steps: Said, begin: float, end: float) -> Said:
    """The same messages, progress as a part of the stage."""
    for said in steps:
        if said["type"] == "progress":
            yield said | {"fraction": begin + (end - begin) * said["fraction"]}
        else:
            yield said


def _timed(work: Work, config: DecomposeConfig) -> Said:
    timing = time_network(work.original, work.example, config, timer_of(work))
    work.timed = yield from told(timing, lambda step: progress(step.fraction, step.message))


def _answers(work: Work) -> Said:
    yield progress(0.06, "Running the original on the validation images")
    work.reference = answer(work.runner(work.original), work.tests, work.folder, "reference")
    if work.allowed_loss is not None:
        check_search(work)
    yield progress(1.0)
    yield from _baseline(work)


def _measured(work: Work, config: DecomposeConfig) -> Said:
    steps = measure(work.original, work.example, config, calibration_images(work))
    work.measured = yield from told(steps, lambda step: progress(step.fraction, step.message))


def _baseline(work: Work) -> Said:
    assert work.reference is not None
    found = score(work.reference, work.reference, work.tests, work.network.output_names)
    if found.accuracy is None:
        return
    yield metric("original_accuracy", 0, found.accuracy)  # the line that the accuracy curve is seen against
    reason = mismatch(work, found.accuracy)
    if reason is not None:
        yield warning("baseline_mismatch", reason)
