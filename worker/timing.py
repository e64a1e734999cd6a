"""How fast a network is in the runtime that its own format is reported in: by layers, and as a file."""

from dataclasses import dataclass
from typing import Any, Final

from basisconv.formats.export import on_cpu
from basisconv.formats.verify import Latency, paired_latency_ms
from basisconv.latency import Timer, TorchTimer
from basisconv.latency.onnx_timer import OnnxTimer
from worker.runners import Runner
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
    """ONNX Runtime for a network that came as ONNX, torch for a .pt2; on the CPU, as verify times the files.

    One image at once, or as many as the file has baked in.
    """
    if work.network.format == "onnx":
        return OnnxTimer(work.network, target_batch(work), work.threads)
    return TorchTimer(on_cpu(work.original), work.network.example(target_batch(work)))


def target_batch(work: Work) -> int:
    """The batch size that a latency target is about."""
    return work.network.batch or 1


def time_files(work: Work, original: Runner, compressed: Runner) -> list[Timing]:
    """At one and at 32 images where the file takes them, and at the size that is baked into it."""
    shape = work.network.input_shape
    sizes = sorted({*BATCHES, target_batch(work)})
    return [
        _time(original, compressed, (shape[0], shape[1], shape[2]), size)
        for size in sizes
        if all(runner.batch in (None, size) for runner in (original, compressed))
    ]


def _time(original: Runner, compressed: Runner, shape: tuple[int, int, int], size: int) -> Timing:
    calls = {"original": original.on_arrays, "compressed": compressed.on_arrays}
    once = paired_latency_ms(calls, shape, size, repeats=1)
    both = sum(latency.median_ms for latency in once.values())
    repeats = max(LEAST_REPEATS, min(MOST_REPEATS, int(TIMED_MS / max(both, 1e-3))))
    timed = paired_latency_ms(calls, shape, size, repeats)
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
