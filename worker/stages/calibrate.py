"""Look at the original: can the target be met, what does it answer, what do its layers respond."""

from collections.abc import Callable, Iterator

from torch import Tensor

from basisconv.config import Progress
from basisconv.decompose import decompose_
from basisconv.measure import check
from worker.baseline import mismatch
from worker.data.preprocess import batches, sample
from worker.measure import answer, batch_size, score
from worker.work import Said, Work, metric, progress, warning

CALIBRATION_IMAGES = 1024  # method.md's figures need 512 to 1024; never of the test part


def calibrate(work: Work) -> Said:
    """The original's answers, then the measuring half of the decomposition."""
    config = work.config()
    check(work.original, work.example, config)
    yield progress(0.02, "Running the original on the validation images")
    said: list[float] = []
    work.reference = answer(work.runner(work.original), work.tests, work.folder, "reference", said.append)
    yield progress(0.3)
    yield from _baseline(work)
    work.steps = iter(decompose_(work.module, work.example, config, calibration_images(work)))
    for step in work.steps:
        if not isinstance(step, Progress) or step.stage != "calibrate":
            work.pending = step
            return
        yield progress(0.3 + 0.7 * step.fraction, step.message)


def _baseline(work: Work) -> Said:
    assert work.reference is not None
    found = score(work.reference, work.reference, work.tests, work.network.output_names)
    if found.accuracy is None:
        return
    yield metric("original_accuracy", 0, found.accuracy)  # the line that the accuracy curve is seen against
    reason = mismatch(work, found.accuracy)
    if reason is not None:
        yield warning("baseline_mismatch", reason)


def calibration_images(work: Work) -> Callable[[], Iterator[Tensor]] | None:
    """Fresh passes over the same preprocessed train images, whole batches where the size is fixed."""
    if work.images is None:
        return None
    fixed = work.network.module_batch
    size = fixed or min(64, batch_size(work.example[0].numel()))
    x = sample(work.images.train_x, CALIBRATION_IMAGES)

    def images() -> Iterator[Tensor]:
        for batch in batches(x, None, work.spec, batch_size=size, device=work.device, fixed=bool(fixed)):
            yield batch.x

    return images
