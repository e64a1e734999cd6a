"""Run the finished network on every validation image."""

from worker.measure import answer
from worker.work import Said, Work, progress


def evaluate(work: Work) -> Said:
    yield progress(0.0, "Running the compressed network on the validation images")
    work.compressed = answer(work.runner(work.module), work.tests, work.folder, "compressed")
    yield progress(1.0)
