"""Torch itself as the runtime, eager, on the CPU or a GPU: layers timed where they stand, by hooks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from basisconv.latency.repeats import repeats
from basisconv.latency.structure import with_pairs
from basisconv.latency.timer import Times, Variant, Whole
from basisconv.nn import Factorized

SECONDS: Final = 0.4  # per variant
MOST_RUNS: Final = 300
_TIMED = (Factorized, nn.Conv2d, nn.Linear)


class TorchTimer:
    """Times `module` on the device and with the batch of `example`, with torch's present threads.

    The least of some runs counts: what else the machine does can only add. On a GPU the times are those
    between events of the stream. It tells no block of channels: which kernel cuDNN takes for a size, and
    what that kernel fills up, only the timed ranks say. `search`: cuDNN tries its kernels, and takes the
    fastest.
    """

    def __init__(self, module: nn.Module, example: Tensor, search: bool = False) -> None:
        self._module = module
        self._example = example
        self._search = search

    def layers(self, variant: Variant) -> Times:
        made = with_pairs(self._module, variant).eval()
        least: dict[str, float] = {}
        whole = float("inf")
        with _marked(made, self._clock()) as marks, torch.no_grad(), _kernels(self._search):
            for _ in repeats(SECONDS, MOST_RUNS):
                marks.clear()
                end = self._timed(made)
                whole = min(whole, end())
                for path, calls in marks.items():
                    spent = sum(_between(began, ended) for began, ended in calls)
                    least[path] = min(least.get(path, spent), spent)
        return Times(least, max(0.0, whole - sum(least.values())))

    def whole(self, variant: Variant) -> Whole:
        before, after = self._module.eval(), with_pairs(self._module, variant).eval()
        least = [float("inf"), float("inf")]
        with torch.no_grad(), _kernels(self._search):
            for _ in repeats(2 * SECONDS, MOST_RUNS):
                for index, network in enumerate((before, after)):
                    least[index] = min(least[index], self._timed(network)())
        return Whole(least[0], least[1])

    def _timed(self, network: nn.Module) -> Callable[[], float]:
        clock = self._clock()
        began = clock()
        network(self._example)
        ended = clock()
        return lambda: _between(began, ended)

    def _clock(self) -> Callable[[], Any]:
        return _event if self._example.is_cuda else time.perf_counter_ns


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(began: Any, ended: Any) -> float:
    """Nanoseconds between two marks."""
    if isinstance(began, int):
        return float(ended - began)
    ended.synchronize()
    return 1e6 * float(began.elapsed_time(ended))


@contextmanager
def _kernels(search: bool) -> Iterator[None]:
    """How cuDNN chooses among its kernels; restored at the end."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = search or before
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _marked(network: nn.Module, clock: Callable[[], Any]) -> Iterator[dict[str, list[tuple[Any, Any]]]]:
    """Marks before and after every layer or pair of `network`, by path and call, of the run under way."""
    marks: dict[str, list[tuple[Any, Any]]] = {}
    handles = []
    inside = {
        id(part) for child in network.modules() if isinstance(child, Factorized) for part in child.children()
    }
    for path, child in network.named_modules():
        if not isinstance(child, _TIMED) or id(child) in inside:
            continue

        def begin(_module: nn.Module, _inputs: Any, path: str = path) -> None:
            now = clock()
            marks.setdefault(path, []).append((now, now))

        def end(_module: nn.Module, _inputs: Any, _output: Any, path: str = path) -> None:
            marks[path][-1] = (marks[path][-1][0], clock())

        handles += [child.register_forward_pre_hook(begin), child.register_forward_hook(end)]
    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()
