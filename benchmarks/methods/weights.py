"""The paper: the eigen-basis of each layer's own filters, one energy threshold for the whole network."""

import copy
from collections.abc import Iterator
from dataclasses import replace

from basisconv import DecomposeConfig, count
from basisconv.front_to_back import fit_
from basisconv.measure import measure
from basisconv.options import Measured
from basisconv.plan import Planned, plan
from benchmarks.drain import drain
from benchmarks.methods.clock import Clock
from benchmarks.methods.protocol import Compressed, Task
from benchmarks.peers.search import largest

CONFIG = DecomposeConfig(basis="weights", target_kind="energy", target_value=1.0)


class Weights:
    name = "weights"
    title = "weights SVD (the paper)"
    seeded = False

    def compress(self, task: Task) -> Iterator[Compressed]:
        clock = Clock()
        measured = drain(measure(task.original, task.example, CONFIG))
        for cut in task.cuts:
            planned = _planned(measured, count(task.original, task.example).macs * (1 - cut))
            network = copy.deepcopy(task.original)
            drain(fit_(network, task.example, measured, planned))
            yield Compressed(cut, network, *clock.lap())


def _planned(measured: Measured, budget: float) -> dict[str, Planned]:
    """The plan at the largest energy threshold that keeps the budget."""

    def at(threshold: float) -> dict[str, Planned]:
        return plan(measured, replace(CONFIG, target_value=threshold))

    return at(largest(lambda threshold: _macs(measured, at(threshold)) <= budget))


def _macs(measured: Measured, planned: dict[str, Planned]) -> int:
    return sum(planned[site.layer.name].option.macs for site in measured.sites)


WEIGHTS = Weights()
