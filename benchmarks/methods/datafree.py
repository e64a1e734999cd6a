"""BasisConv without any image: measured on images made from the network's own batch norms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from basisconv import Progress
from basisconv.datafree import Pixels, SynthesisConfig, Synthetic, synthesize
from benchmarks.methods.clock import Clock
from benchmarks.methods.ours import OURS
from benchmarks.methods.protocol import Compressed, Task
from benchmarks.networks import normalisation


@dataclass(frozen=True)
class WithoutImages:
    """Does what OURS does once it has made the images; the task's own are not looked at."""

    name: str = "basisconv_datafree"
    title: str = "BasisConv without images"
    seeded: bool = True

    def compress(self, task: Task) -> Iterator[Compressed]:
        clock = Clock()
        made = _made(task)
        seconds, cpu_seconds = clock.lap()
        draw = replace(task.draw, images=made.calibration, labels=task.draw.labels[:0])
        for found in OURS.compress(replace(task, draw=draw)):
            yield replace(found, seconds=found.seconds + seconds, cpu_seconds=found.cpu_seconds + cpu_seconds)
            seconds = cpu_seconds = 0.0  # counted to the first cut, as what OURS measures


def _made(task: Task) -> Synthetic:
    input_ = normalisation(task.network)
    pixels = Pixels.normalised(input_.scale, input_.mean, input_.std)
    original, example = task.original.to(task.device), task.example.to(task.device)
    *_, made = synthesize(original, example, pixels, SynthesisConfig(seed=task.seed))
    assert not isinstance(made, Progress)
    return made


WITHOUT_IMAGES = WithoutImages()
