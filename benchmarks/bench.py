"""One network of a suite, measured: every cut x method x seed that the raw file lacks."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from torch import nn

from basisconv.finetune import TrainingData
from benchmarks import data
from benchmarks.measure import Judge, Sizes, as_values
from benchmarks.methods import METHODS, Compressed, Method, Task
from benchmarks.methods.clock import Clock
from benchmarks.networks import example, load
from benchmarks.raw import Key, RawFile, Row
from benchmarks.recalibrate import divergence, recalibrated
from benchmarks.sources import row_code
from benchmarks.suites import Part
from benchmarks.tuning import tuned

AS_GIVEN = ("basisconv", "basisconv_basis", "basisconv_datafree", "uncompressed")  # norms stay: they fit


class Bench:
    """One part of a suite: its network, images and judge."""

    def __init__(self, part: Part, sizes: Sizes, folder: Path, raw: RawFile, device: str) -> None:
        self._part, self._sizes, self._raw, self._device = part, sizes, raw, device
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
        return self._raw.has(key, self._code(key.method, key.tuned))

    @cache  # noqa: B019 - a bench lives as long as its run; so does the code that it began with
    def _code(self, method: str, tuned: bool) -> str:
        settings = {"calibration": self._part.calibration, **asdict(self._sizes)}
        recipe = {"recipe": self._part.recipe} if tuned else {}
        return row_code(self._part.network, method, tuned, settings | recipe)

    def _of(self, method: Method, seed: int, compressed: Compressed) -> Iterator[Row]:
        first, *others = self._part.keys(method, seed, compressed.cut)
        start, values = self._chosen(method, seed, compressed)
        if not self._has(first):
            yield Row(first, self._code(method.name, False), values | as_values(self._judge.figures(start)))
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
        return Row(key, self._code(key.method, True), values | as_values(self._judge.figures(network)))

    @cache  # noqa: B019 - a bench lives as long as its run
    def _training(self) -> TrainingData:
        recipe = self._part.recipe
        assert recipe is not None
        return data.training(self._part.network, recipe.images)
