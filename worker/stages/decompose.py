"""Replace layers: the fitting half of the decomposition, and what the network answers right after it."""

from itertools import chain

from basisconv.config import Decomposition
from worker.measure import answer
from worker.work import Said, Work, progress


def decompose(work: Work) -> Said:
    assert work.steps is not None
    assert work.pending is not None
    for step in chain([work.pending], work.steps):
        if isinstance(step, Decomposition):
            work.decomposition = step
        else:
            layer = work.public.get(step.message, step.message)
            yield progress(0.85 * step.fraction, layer)
    work.steps = work.pending = None
    if work.options.training.epochs and work.with_images:
        yield progress(0.85, "Running the truncated network on the validation images")
        work.truncated = answer(work.runner(work.module), work.tests, work.folder, "truncated")
