"""BasisConv without tuning: measured once, then planned and fitted for every budget."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from basisconv import DecomposeConfig
from basisconv.front_to_back import fit_
from basisconv.measure import measure
from basisconv.plan import plan
from benchmarks.drain import drain
from benchmarks.methods.clock import Clock
from benchmarks.methods.protocol import Compressed, Task

BATCH = 128


@dataclass(frozen=True)
class Ours:
    name: str
    title: str
    forms: Literal["basis", "auto"]
    seeded: bool = True

    def compress(self, task: Task) -> Iterator[Compressed]:
        def images() -> Iterator[Tensor]:
            return (batch.to(task.device) for batch in task.draw.images.split(BATCH))

        clock = Clock()
        original, example = copy.deepcopy(task.original).to(task.device), task.example.to(task.device)
        config = DecomposeConfig(target_value=1 - min(task.cuts), forms=self.forms, seed=task.seed)
        measured = drain(measure(original, example, config, images))
        for cut in task.cuts:
            network = copy.deepcopy(original)
            planned = plan(measured, replace(config, target_value=1 - cut))
            drain(fit_(network, example, measured, planned, images))
            yield Compressed(cut, network.cpu(), *clock.lap())


OURS = Ours("basisconv", "BasisConv", "auto")
OURS_BASIS_ONLY = Ours("basisconv_basis", "BasisConv, the paper's form only", "basis")
