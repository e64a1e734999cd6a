"""Look at the original: can the target be met, what does it answer, what do its layers respond."""

from basisconv.measure import check, measure
from worker.baseline import mismatch
from worker.calibration import calibration_images
from worker.measure import answer, score
from worker.search import check_search
from worker.work import Said, Work, metric, progress, told, warning


def calibrate(work: Work) -> Said:
    """The original's answers, then the measuring half of the decomposition."""
    config = work.config()
    check(work.original, work.example, config)
    yield progress(0.02, "Running the original on the validation images")
    said: list[float] = []
    work.reference = answer(work.runner(work.original), work.tests, work.folder, "reference", said.append)
    if work.allowed_loss is not None:
        check_search(work)
    yield progress(0.3)
    yield from _baseline(work)
    steps = measure(work.original, work.example, config, calibration_images(work))
    work.measured = yield from told(steps, lambda step: progress(0.3 + 0.7 * step.fraction, step.message))


def _baseline(work: Work) -> Said:
    assert work.reference is not None
    found = score(work.reference, work.reference, work.tests, work.network.output_names)
    if found.accuracy is None:
        return
    yield metric("original_accuracy", 0, found.accuracy)  # the line that the accuracy curve is seen against
    reason = mismatch(work, found.accuracy)
    if reason is not None:
        yield warning("baseline_mismatch", reason)
