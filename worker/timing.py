"""How fast a network is in the runtime that its own format is reported in: by layers, and as a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from basisconv.formats.export import on_device
from basisconv.formats.verify import Latency, Load, onnx_load, paired_latency_ms, pt2_load
from basisconv.latency import Timer, TorchTimer
from basisconv.latency.onnx_timer import onnx_timer
from worker.work import Work

BATCHES: Final = (1, 32)
TIMED_MS: Final = 1_500.0  # for both networks together, per batch size
LEAST_REPEATS: Final = 5
MOST_REPEATS: Final = 100
MEDIAN_SPREAD: Final = (
    1.86  # a median's standard error over half the middle range, times the root of the repeats
)


@dataclass(frozen=True)
class Timing:
    """Both networks at one batch size, timed in turns."""

    batch: int
    original: Latency
    compressed: Latency
    repeats: int

    @property
    def ratio(self) -> float:
        return self.compressed.median_ms / self.original.median_ms

    @property
    def spread(self) -> float:
        """Two standard errors of `ratio`."""
        relative = sum((t.spread_ms / t.median_ms) ** 2 for t in (self.original, self.compressed)) ** 0.5
        return 2 * self.ratio * relative * MEDIAN_SPREAD / self.repeats**0.5


def timer_of(work: Work) -> Timer:
    """ONNX Runtime for a network that came as ONNX, torch for a .pt2; where verify times the files.

    One image at once, or as many as the file has baked in.
    """
    size, device = target_batch(work), work.latency_device
    if work.network.format == "onnx":
        return onnx_timer(work.network, size, work.threads, device)
    return TorchTimer(on_device(work.original, device), work.network.example(size).to(device))


def target_batch(work: Work) -> int:
    """The batch size that a latency target is about."""
    return work.network.batch or 1


def time_files(work: Work, original: Path, compressed: Path) -> list[Timing]:
    """At one and at 32 images, or at the size that is baked into the files, both of the model's format."""
    shape, fixed = work.network.input_shape, work.network.batch
    load = onnx_load if work.network.format == "onnx" else pt2_load
    loads = {
        name: load(path, work.threads, work.latency_device)
        for name, path in {"original": original, "compressed": compressed}.items()
    }
    return [_time(loads, (shape[0], shape[1], shape[2]), size) for size in ([fixed] if fixed else BATCHES)]


def _time(loads: Mapping[str, Load], shape: tuple[int, int, int], size: int) -> Timing:
    once = paired_latency_ms(loads, shape, size, repeats=1)
    both = sum(latency.median_ms for latency in once.values())
    repeats = max(LEAST_REPEATS, min(MOST_REPEATS, int(TIMED_MS / max(both, 1e-3))))
    timed = paired_latency_ms(loads, shape, size, repeats)
    return Timing(size, timed["original"], timed["compressed"], repeats)


def figures(timings: list[Timing], name: str) -> dict[str, Any]:
    """A network's medians and half the range of their middle 50 %; null at batch sizes the file refuses."""
    none: dict[str, float | None] = {f"batch_{size}": None for size in BATCHES}
    timed = {f"batch_{t.batch}": getattr(t, name) for t in timings}
    return {
        "latency_ms": none | {key: round(one.median_ms, 4) for key, one in timed.items()},
        "latency_spread_ms": none | {key: round(one.spread_ms, 4) for key, one in timed.items()},
    }


def repeats(timings: list[Timing]) -> dict[str, int]:
    """How often each network was run at each batch size."""
    return {f"batch_{t.batch}": t.repeats for t in timings}
