"""One protocol for all: a network and budgets in, compressed networks out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from benchmarks.data import Draw


@dataclass(frozen=True)
class Task:
    """`original`: in eval mode, not to be changed. `cuts`: shares of its MACs to remove at least."""

    network: str
    original: nn.Module
    example: Tensor
    cuts: tuple[float, ...]
    draw: Draw
    seed: int
    threads: int
    device: str = "cpu"


@dataclass(frozen=True)
class Compressed:
    """`seconds` and `cpu_seconds`: for this cut; what serves all cuts is counted to the first."""

    cut: float
    module: nn.Module
    seconds: float
    cpu_seconds: float


class Method(Protocol):
    name: str
    title: str
    seeded: bool  # whether the result depends on the calibration images or on chance

    def compress(self, task: Task) -> Iterator[Compressed]:
        """One network per cut that the method can reach, on the CPU and in eval mode."""
