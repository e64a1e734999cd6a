"""Replace layers as planned, or search how far that may go, and what the network answers right after it."""

from collections.abc import Generator

from torch import fx

from basisconv.config import Decomposition
from basisconv.front_to_back import fit_
from basisconv.latency import plan_timed
from basisconv.plan import Planned, plan
from worker.calibration import calibration_images
from worker.measure import answer
from worker.search import search
from worker.work import Message, Said, Work, progress, told

FITTING = 0.85  # of the stage's time, where the truncated network is judged as well


def decompose(work: Work) -> Said:
    if work.allowed_loss is None:
        work.decomposition = yield from _as_planned(work)
    else:
        work.search = yield from search(work)
        assert isinstance(work.search.module, fx.GraphModule)
        work.module, work.decomposition = work.search.module, work.search.decomposition
    work.measured = None
    if work.options.training.epochs and work.with_images:
        yield progress(FITTING, "Running the truncated network on the validation images")
        answers = answer(work.runner(work.module), work.tests, work.folder, "truncated")
        work.truncated = work.scored(answers)


def _as_planned(work: Work) -> Generator[Message, None, Decomposition]:
    assert work.measured is not None
    steps = fit_(work.module, work.example, work.measured, (yield from _plan(work)), calibration_images(work))
    return (yield from told(steps, lambda step: progress(FITTING * step.fraction, work.named(step.message))))


def _plan(work: Work) -> Generator[Message, None, dict[str, Planned]]:
    assert work.measured is not None
    if work.timed is None:
        return plan(work.measured, work.config())
    steps = plan_timed(work.measured, work.config(), work.timed)
    return (yield from told(steps, lambda step: progress(step.fraction, step.message)))
