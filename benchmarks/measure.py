"""The figures of one network, all from its exported file but the parameters."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from basisconv.cost import stored_params
from benchmarks import onnx_file
from benchmarks.data import pixels
from benchmarks.networks import normalisation

BATCH = 128


@dataclass(frozen=True)
class Sizes:
    """`test_images`: None for all. `runs`: timed pairs at batch 1; an eighth of them at batch 32."""

    test_images: int | None = None
    runs: int = 80


@dataclass(frozen=True)
class Figures:
    """Of the exported file; `params` are those that training can change. Times of ONNX Runtime on the CPU,
    one thread; `latency_ratio_1` and `_32`: against the original's file, in turns, at that batch size.
    """

    accuracy: float
    test_images: int
    macs: int
    macs_kept: float
    params: int
    params_kept: float
    size_bytes: int
    size_kept: float
    latency_ms_1: float
    latency_ratio_1: float
    latency_ms_32: float
    latency_ratio_32: float


class Judge:
    """Measures networks beside their original; files lie in `folder`."""

    def __init__(self, network: str, original: nn.Module, folder: Path, sizes: Sizes) -> None:
        self._network, self._sizes, self._folder = network, sizes, folder
        self._params = stored_params(original)
        self._before = onnx_file.export(original, folder / "original.onnx")

    def figures(self, module: nn.Module) -> Figures:
        file = onnx_file.export(module, self._folder / "compressed.onnx")
        macs, before = onnx_file.macs(file), onnx_file.macs(self._before)
        params, size = stored_params(module), file.stat().st_size
        accuracy, images = self.accuracy(module)
        _, ms_1, ratio_1 = onnx_file.latencies(self._before, file, 1, self._sizes.runs)
        _, ms_32, ratio_32 = onnx_file.latencies(self._before, file, 32, max(3, self._sizes.runs // 8))
        return Figures(
            accuracy=accuracy,
            test_images=images,
            macs=macs,
            macs_kept=macs / before,
            params=params,
            params_kept=params / self._params,
            size_bytes=size,
            size_kept=size / self._before.stat().st_size,
            latency_ms_1=ms_1,
            latency_ratio_1=ratio_1,
            latency_ms_32=ms_32,
            latency_ratio_32=ratio_32,
        )

    def accuracy(self, module: nn.Module) -> tuple[float, int]:
        """Top-1 share of the exported file on the test images, and their number."""
        runtime = onnx_file.session(onnx_file.export(module, self._folder / "judged.onnx"))
        prepare = normalisation(self._network)
        right = total = 0
        for images, labels in _batches(self._network, self._sizes.test_images):
            right += onnx_file.correct(runtime, prepare(images), labels)
            total += len(labels)
        return right / total, total


def _batches(network: str, count: int | None) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    images, labels = pixels(network, "test")
    images, labels = images[:count], labels[:count]
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH], labels[start : start + BATCH]


def as_values(figures: Figures) -> dict[str, float | int]:
    return asdict(figures)
