"""`python -m benchmarks.foretold`: what target `accuracy_drop` foretells, beside what is lost on test images.

    python -m benchmarks.foretold [--network cifar10_resnet20_a] [--out benchmarks/results]

Each network is measured once on 512 train images, then fitted at every share of its operations; the loss is
foretold from other train images, with their labels, and told on all test images. No tuning.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from basisconv import DecomposeConfig
from basisconv.foretell import accuracy_lost
from basisconv.front_to_back import fit_
from basisconv.measure import measure
from basisconv.plan import plan
from basisconv.smallest import Smallest, Try, smallest
from benchmarks import machine
from benchmarks.data import pixels
from benchmarks.networks import example, load, normalisation
from benchmarks.report.tables import markdown
from benchmarks.report.titles import TITLES

CALIBRATION, HELD_BACK, BATCH = 512, 3_000, 128
SHARES = {
    "cifar10_resnet20_a": (0.6, 0.5, 0.4),
    "cifar10_resnet20_b": (0.6, 0.4),
    "cifar10_resnet56_a": (0.4,),
    "cifar100_resnet20_b": (0.8, 0.6),
}
SEARCHED, ALLOWED = "cifar10_resnet20_a", 0.01  # the promise kept in full once: one point


@dataclass(frozen=True)
class Row:
    """Losses in points. `share`: of the operations; `error`: one standard error of `lost`."""

    network: str
    share: float
    foretold: float
    lost: float
    error: float
    searched: bool = False


@dataclass(frozen=True)
class Answers:
    """The original's, and what they are judged by."""

    inputs: Tensor
    labels: Tensor
    scores: Tensor

    @classmethod
    def of(cls, network: nn.Module, inputs: Tensor, labels: Tensor) -> "Answers":
        return cls(inputs, labels, scores(network, inputs))

    def foretold(self, candidate: nn.Module) -> float:
        return accuracy_lost(scores(candidate, self.inputs), self.scores, self.labels)

    def lost(self, candidate: nn.Module) -> tuple[float, float]:
        """And one standard error, of the difference image by image."""
        before = (self.scores.argmax(1) == self.labels).double()
        after = (scores(candidate, self.inputs).argmax(1) == self.labels).double()
        lost = before - after
        return float(lost.mean()), float(lost.std() / len(lost) ** 0.5)


@torch.no_grad()
def scores(network: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([network(x) for x in inputs.split(500)])


def rows(name: str) -> Iterator[Row]:
    original, prepare = load(name), normalisation(name)
    train, labels = pixels(name, "train")
    test, test_labels = pixels(name, "test")
    inputs, held = prepare(train[:CALIBRATION]), slice(CALIBRATION, CALIBRATION + HELD_BACK)
    images = partial(_batches, inputs)
    promised = Answers.of(original, prepare(train[held]), torch.from_numpy(labels[held]))
    real = Answers.of(original, prepare(test), torch.from_numpy(test_labels))
    config = DecomposeConfig(target_value=1.0)
    measured = _end(measure(original, example(), config, images))

    def row(candidate: nn.Module, share: float, searched: bool = False) -> Row:
        lost, error = real.lost(candidate)
        return Row(name, share, 100 * promised.foretold(candidate), 100 * lost, 100 * error, searched)

    for share in SHARES[name]:
        candidate = copy.deepcopy(original)
        planned = plan(measured, replace(config, target_value=share))
        _end(fit_(candidate, example(), measured, planned, images))
        yield row(candidate, share)
    if name == SEARCHED:
        found: Smallest = _end(
            smallest(original, example(), config, measured, promised.foretold, ALLOWED, images)
        )
        assert found.found is not None
        yield row(found.module, found.found.share, searched=True)
        print(f"tried: {', '.join(map(_told, found.tries))}", flush=True)


def _told(one: Try) -> str:
    return f"{one.share:.1%} foretold {100 * one.loss:.2f}"


def _batches(inputs: Tensor) -> Iterator[Tensor]:
    return iter(inputs.split(BATCH))


def _end(steps: Any) -> Any:
    """What a generator of progress returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def table(found: list[Row]) -> str:
    lines = [["network", "operations kept", "foretold, points", "lost on test images, points"]]
    for row in found:
        kept = f"{row.share:.1%}" + (f", searched for {100 * ALLOWED:.0f} point" if row.searched else "")
        title = TITLES.get(row.network, row.network)
        lines.append([title, kept, f"{row.foretold:.2f}", f"{row.lost:.2f} ± {row.error:.2f}"])
    return f"# Foretold and real losses\n\n{markdown(lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=SHARES)
    parser.add_argument("--out", type=Path, default=machine.ROOT / "benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Row] = []
    for name in arguments.network or SHARES:
        for row in rows(name):
            found.append(row)
            print(row, flush=True)
            about = machine.describe("cpu")
            document = {**about, "rows": [asdict(row) for row in found]}
            (arguments.out / "foretold.json").write_text(json.dumps(document, indent=1) + "\n")
            (arguments.out / "foretold.md").write_text(table(found))


if __name__ == "__main__":
    main()
