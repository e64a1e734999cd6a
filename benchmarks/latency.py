"""What a target of time is worth: operations and measured time of the networks that each target chooses.

    python -m benchmarks.latency [vgg16 resnet18 resnet56] [--out benchmarks/results]

ONNX Runtime on the CPU, one thread, at 1 and 32 images. VGG16 and ResNet-18 have random weights (time does
not depend on them); ResNet-56 is a trained one from the shared data and its ranks follow measured responses.
Ranks are chosen at batch 1. Times are the least of runs in turns with the original, in one process; each
ratio is the median of three such comparisons, the spread their range.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from basisconv import DecomposeConfig, InfeasibleTarget, count
from basisconv.formats import onnx_reader
from basisconv.formats.network import Network
from basisconv.latency import Timed, Variant, plan_timed, time_network, variant_of
from basisconv.latency.onnx_timer import OnnxTimer
from basisconv.latency.planning import with_times
from basisconv.latency.structure import with_pairs
from basisconv.measure import measure
from basisconv.options import Measured
from basisconv.plan import plan
from benchmarks.timed_networks import onnx_of, resnet18, vgg16
from tests.support import networks as shared

TARGETS = (0.7, 0.5, 0.35)
BATCHES = (1, 32)
COMPARISONS = 3
IMAGES = 512
Images = Callable[[], Iterator[Tensor]]


@dataclass(frozen=True)
class Case:
    network: Network
    images: Images | None
    aim: float  # speed-up over MAC cut that is hoped for


@dataclass(frozen=True)
class Row:
    """One choice. Ratios are shares of the original; `share`: speed-up over MAC cut."""

    network: str
    target: str
    value: float
    macs: float
    predicted: float
    time: dict[str, float]
    spread: dict[str, float]
    share: dict[str, float]
    forms: dict[str, int]


def resnet56() -> Case:
    name = "cifar10_resnet56_a"
    network = onnx_reader.load(onnx_of(shared.load(name), (3, 32, 32)))
    pixels = shared.cifar10_images("train", IMAGES)[0]
    return Case(network, lambda: shared.batches(name, pixels, 64), aim=0.8)


CASES: dict[str, Callable[[], Case]] = {
    "vgg16": lambda: Case(onnx_reader.load(onnx_of(vgg16(), (3, 32, 32))), None, aim=0.95),
    "resnet18": lambda: Case(onnx_reader.load(onnx_of(resnet18(), (3, 224, 224))), None, aim=0.95),
    "resnet56": resnet56,
}


def finished(steps: Any) -> Any:
    """What a generator of progress returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@dataclass(frozen=True)
class Bench:
    """One network, measured and timed once."""

    name: str
    case: Case
    config: DecomposeConfig
    timed: Timed
    measured: Measured
    others: dict[int, OnnxTimer]  # by batch size

    @classmethod
    def of(cls, name: str, batches: list[int]) -> "Bench":
        case = CASES[name]()
        module, example = case.network.module, case.network.example(1)
        basis: Any = "weights" if case.images is None else "activations"
        config = DecomposeConfig(basis=basis, target_kind="latency", target_value=1.0, forms="auto")
        began = time.monotonic()
        timer = OnnxTimer(case.network)
        timed = finished(time_network(module, example, config, timer))
        said = f"timed in {time.monotonic() - began:.0f} s; with the fastest pairs {timed.least:.1%} remain"
        began = time.monotonic()
        measured = finished(measure(module, example, config, case.images))
        print(f"\n{name}: {said}; measured in {time.monotonic() - began:.0f} s")
        others = {batch: timer if batch == 1 else OnnxTimer(case.network, batch) for batch in batches}
        return cls(name, case, config, timed, measured, others)

    def rows(self, targets: list[float]) -> Iterator[Row]:
        for value in targets:
            try:
                yield self._row("latency, auto", value, self._by_time(value))
            except InfeasibleTarget as error:
                print(f"  latency {value}: infeasible, achievable {error.achievable}")
            for forms in ("basis", "auto"):
                yield self._row(f"macs, {forms}", value, self._by_macs(value, forms))

    def _by_time(self, value: float) -> Variant:
        if self.timed.least > value:
            raise InfeasibleTarget("too slow", achievable=round(self.timed.least, 3))
        config = replace(self.config, target_value=value)
        return variant_of(finished(plan_timed(self.measured, config, self.timed)))

    def _by_macs(self, value: float, forms: Any) -> Variant:
        config = replace(self.config, target_kind="macs", target_value=value, forms=forms)
        tables = {
            path: [option for option in table if forms == "auto" or option.form in ("dense", "basis")]
            for path, table in self.measured.tables.items()
        }
        return variant_of(plan(replace(self.measured, tables=tables), config))

    def _row(self, target: str, value: float, variant: Variant) -> Row:
        module, example = self.case.network.module, self.case.network.example(1)
        macs = count(with_pairs(module, variant), example).macs / count(module, example).macs
        found = {
            str(batch): sorted(timer.whole(variant).ratio for _ in range(COMPARISONS))
            for batch, timer in self.others.items()
        }
        ratio = {batch: statistics.median(ratios) for batch, ratios in found.items()}
        forms = [cut.form for cut in variant.values()]
        return Row(
            self.name,
            target,
            value,
            macs,
            self._predicted(variant),
            ratio,
            {batch: ratios[-1] - ratios[0] for batch, ratios in found.items()},
            {batch: (1 - r) / (1 - macs) if macs < 1 else 0.0 for batch, r in ratio.items()},
            {form: forms.count(form) for form in sorted(set(forms))},
        )

    def _predicted(self, variant: Variant) -> float:
        """Of the layers' own times; a pair that no option was timed for counts as its layer."""
        table = self.timed.table
        timed = with_times(self.measured, table)
        saved = 0.0
        for path, cut in variant.items():
            ns = table.ns(path, cut.form, cut.rank)
            saved += 0.0 if ns is None else timed.tables[path][0].ns - ns
        return 1 - saved / timed.ns


def line(row: Row) -> str:
    cells = [
        f"{row.network:9}",
        f"{row.target:14}",
        f"{row.value:5.2f}",
        f"{row.macs:6.3f}",
        f"{row.predicted:9.3f}",
    ]
    for batch in row.time:
        cells += [f"{row.time[batch]:7.3f} ±{row.spread[batch] / 2:5.3f}", f"{row.share[batch]:6.2f}"]
    return "  ".join([*cells, " ".join(f"{form}:{n}" for form, n in row.forms.items())])


def verdict(name: str, aim: float, rows: list[Row]) -> str:
    """The aim against what the latency targets measured."""
    shares = {b: [row.share[b] for row in rows if row.target.startswith("latency")] for b in rows[0].time}
    said = ", ".join(
        f"batch {batch}: {sum(share >= aim for share in found)} of {len(found)} targets, median "
        f"{statistics.median(found):.2f}"
        for batch, found in shares.items()
        if found
    )
    return f"{name}: speed-up at least {aim} of the MAC cut: {said}"


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "threads": 1,
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Time against operations, by target")
    parser.add_argument("networks", nargs="*", choices=[*CASES, []], default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--batches", nargs="*", type=int, default=BATCHES)
    parser.add_argument("--targets", nargs="*", type=float, default=TARGETS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    show = partial(print, flush=True)
    show(
        "network    target           ask    MACs  predicted   time by batch size, its share of the cut, forms"
    )
    for name in chosen.networks:
        bench = Bench.of(name, chosen.batches)
        rows = []
        for row in bench.rows(chosen.targets):
            rows.append(row)
            show(line(row))
        told = verdict(name, bench.case.aim, rows)
        show(told)
        chosen.out.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine(), "verdict": told, "rows": [asdict(row) for row in rows]}
        (chosen.out / f"latency-{name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
