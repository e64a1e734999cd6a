"""`python -m benchmarks.method`: every network x cut x method x seed of a suite into a raw file.

Fresh by default; --resume keeps rows of the same code, --network, --method take a part of the suite.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch
from torch import nn

from basisconv.finetune import TrainingData
from benchmarks import data, machine
from benchmarks.measure import Judge, Sizes, as_values
from benchmarks.methods import METHODS, Compressed, Method, Task
from benchmarks.methods.clock import Clock
from benchmarks.networks import example, load
from benchmarks.raw import Key, RawFile, Row
from benchmarks.recalibrate import divergence, recalibrated
from benchmarks.suites import SUITES, Part, Suite, small
from benchmarks.tuning import tuned

AS_GIVEN = ("basisconv", "basisconv_basis", "uncompressed")  # no batch norms re-estimated: not needed


class Bench:
    """One part of a suite: its network, images and judge."""

    def __init__(self, part: Part, sizes: Sizes, folder: Path, raw: RawFile, device: str) -> None:
        self._part, self._raw, self._device = part, raw, device
        self._code = machine.code_version()
        self._original = load(part.network)
        self._judge = Judge(part.network, self._original, folder, sizes)

    def rows(self) -> Iterator[Row]:
        for name in self._part.methods:
            method = METHODS[name]
            for seed in self._part.seeds_of(method):
                cuts = self._part.missing(method, seed, self._has)
                for compressed in method.compress(self._task(cuts, seed)) if cuts else ():
                    yield from self._of(method, seed, compressed)

    def _task(self, cuts: tuple[float, ...], seed: int) -> Task:
        draw = data.draw(self._part.network, seed, self._part.calibration)
        threads = torch.get_num_threads()
        return Task(self._part.network, self._original, example(), cuts, draw, seed, threads, self._device)

    def _has(self, key: Key) -> bool:
        return self._raw.has(key, self._code)

    def _of(self, method: Method, seed: int, compressed: Compressed) -> Iterator[Row]:
        first, *others = self._part.keys(method, seed, compressed.cut)
        start, values = self._chosen(method, seed, compressed)
        if not self._has(first):
            yield Row(first, self._code, values | as_values(self._judge.figures(start)))
        for key in others:
            if not self._has(key):
                yield self._tuned(key, start)

    def _chosen(
        self, method: Method, seed: int, compressed: Compressed
    ) -> tuple[nn.Module, dict[str, float | bool]]:
        """With its batch norms re-estimated where the held-back images ask for it, and what was seen."""
        values: dict[str, float | bool] = {
            "seconds": compressed.seconds,
            "cpu_seconds": compressed.cpu_seconds,
        }
        if method.name in AS_GIVEN:
            return compressed.module, values
        draw = data.draw(self._part.network, seed, self._part.calibration)
        fresh = recalibrated(compressed.module, draw.images)
        before, after = (
            divergence(module, self._original, draw.held_back) for module in (compressed.module, fresh)
        )
        values |= {"held_back_kl": before, "held_back_kl_norms": after, "norms_again": after < before}
        if after >= before:
            return compressed.module, values
        values["accuracy_as_given"] = self._judge.accuracy(compressed.module)[0]
        return fresh, values

    def _tuned(self, key: Key, start: nn.Module) -> Row:
        recipe = self._part.recipe
        assert recipe is not None
        clock = Clock()
        network = tuned(start, self._original, self._training(), recipe, key.seed, self._device)
        seconds, cpu_seconds = clock.lap()
        values = {"seconds": seconds, "cpu_seconds": cpu_seconds, "recipe": vars(recipe)}
        return Row(key, self._code, values | as_values(self._judge.figures(network)))

    @cache  # noqa: B019 - a bench lives as long as its run
    def _training(self) -> TrainingData:
        recipe = self._part.recipe
        assert recipe is not None
        return data.training(self._part.network, recipe.images)


def run(suite: Suite, raw: RawFile, device: str) -> Iterator[Row]:
    """Measure what the raw file lacks; every row is in it when it is yielded."""
    for part in suite.parts:
        with tempfile.TemporaryDirectory() as folder:
            for row in Bench(part, suite.sizes, Path(folder), raw, device).rows():
                raw.add(row)
                yield row


def _asked(arguments: argparse.Namespace) -> Suite:
    suite = SUITES[arguments.suite]
    suite = small(suite) if arguments.small else suite
    parts = (
        replace(part, methods=tuple(m for m in part.methods if m in (arguments.method or part.methods)))
        for part in suite.parts
        if part.network in (arguments.network or [part.network])
    )
    return replace(suite, parts=tuple(parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="cpu")
    parser.add_argument(
        "--small", action="store_true", help="minutes, to prove the code; figures mean nothing"
    )
    parser.add_argument("--resume", action="store_true", help="keep rows that this very code has measured")
    parser.add_argument("--network", action="append")
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--raw", type=Path)
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    name = f"method-{arguments.suite}{'-small' if arguments.small else ''}.json"
    folder = machine.ROOT / ("build/bench" if arguments.small else "benchmarks/results")
    about = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": arguments.suite,
        **machine.describe(arguments.device),
    }
    path = arguments.raw or folder / name
    raw = RawFile.resumed(path, about) if arguments.resume else RawFile(path, about)
    for row in run(_asked(arguments), raw, arguments.device):
        key, accuracy = row.key, row.values["accuracy"]
        print(
            f"{key.network} {key.method} -{key.cut:.0%} seed {key.seed} {'tuned' if key.tuned else ''}"
            f" {100 * accuracy:.2f} % of {row.values['macs_kept']:.3f} MACs",
            flush=True,
        )
    print(f"raw data: {path}")


if __name__ == "__main__":
    main()
