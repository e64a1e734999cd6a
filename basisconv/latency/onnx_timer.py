"""ONNX Runtime as the runtime: every node timed inside the whole network, fused and laid out as it will run.

Needs onnx and onnxruntime. A layer alone in a session would pay for entering and leaving the runtime's
own channel blocks, which it does not where it stands; the runtime's profile has no such error. On a CUDA
device that profile shows how long a node takes to be launched, not to be computed: there torch times the
layers, with the same kernels of cuDNN.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import ModelProto

from basisconv.formats import onnx_writer
from basisconv.formats.export import on_device
from basisconv.formats.network import Network
from basisconv.formats.onnx_session import Device, bound, open_session
from basisconv.latency.curve import BELOW
from basisconv.latency.onnx_nodes import Place, places
from basisconv.latency.repeats import repeats
from basisconv.latency.structure import with_pairs
from basisconv.latency.timer import Apart, Timer, Times, Variant, Whole
from basisconv.latency.torch_timer import TorchTimer

SECONDS: Final = 0.3  # of profiled runs per variant
WHOLE_SECONDS: Final = 1.5  # of a comparison of whole networks
MOST_PROFILED: Final = 200  # runs: a profile is read into memory
MOST_RUNS: Final = 1000
MOST_NOTING_NS: Final = 2000.0  # seen: 600 to 1500
_SUFFIX: Final = "_kernel_time"


@dataclass(frozen=True)
class Node:
    """A line of the runtime's profile: the least microseconds of its runs, its first output's channels."""

    name: str
    kind: str
    microseconds: float
    channels: int | None


class OnnxTimer:
    """Times a network that came as ONNX.

    `batch`: images at once, unless the file has its own batch size baked in; `threads`: intra-op. Node
    times are the least of at least six runs: what else the machine does can only add; from each the
    effort of noting it down is taken off. With one thread on the CPU, what counts is the processor time of
    that thread, which other programs cannot add to. `device`: of whole networks; layers on the CPU alone.
    """

    def __init__(self, network: Network, batch: int = 1, threads: int = 1, device: Device = "cpu") -> None:
        assert isinstance(network.source, ModelProto), "a network from .pt2 is timed by TorchTimer"
        self._network = network
        self._threads = threads
        self._device: Device = device
        size = network.batch or batch
        x_NCHW = np.random.default_rng(0).standard_normal((size, *network.input_shape), dtype=np.float32)
        x = x_NCHW if network.layout == "NCHW" else np.ascontiguousarray(x_NCHW.transpose(0, 2, 3, 1))
        self._feed = {network.input_name: x}

    def layers(self, variant: Variant) -> Times:
        model = self._model(variant)
        nodes = self._profile(model)
        at = places(self._network, model, [node.name for node in nodes], [node.kind for node in nodes])
        ns = [max(0.0, 1000 * node.microseconds - self._noting_ns) for node in nodes]
        times = {path: sum(ns[i] for i in place.nodes) for path, place in at.items()}
        total = sum(ns)
        return Times(times, total - sum(times.values()), _block(nodes, at, variant))

    def whole(self, variant: Variant) -> Whole:
        runners = (self._original, self._runner(self._model(variant)))
        least = [float("inf"), float("inf")]
        for _ in repeats(WHOLE_SECONDS, MOST_RUNS):
            for index, run in enumerate(runners):
                least[index] = min(least[index], run())
        return Whole(least[0], least[1])

    @cached_property
    def _original(self) -> Callable[[], float]:
        return self._runner(self._model({}))

    @cached_property
    def _noting_ns(self) -> float:
        """What a profiled node takes longer: the runs with and without a profile, over the nodes."""
        nodes = self._profile(self._model({}))
        plain = min(self._original() for _ in repeats(SECONDS, MOST_RUNS))
        more = 1000 * sum(node.microseconds for node in nodes) - plain
        return min(max(0.0, more / max(1, len(nodes))), MOST_NOTING_NS)

    def _model(self, variant: Variant) -> ModelProto:
        return onnx_writer.write(self._network, with_pairs(self._network.module, variant))

    def _runner(self, model: ModelProto) -> Callable[[], float]:
        session = open_session(model.SerializeToString(), self._threads, self._device)
        call = bound(session, self._feed, self._device)
        alone = self._threads == 1 and self._device == "cpu"
        clock = time.thread_time_ns if alone else time.perf_counter_ns

        def run() -> float:
            began = clock()
            call()
            return float(clock() - began)

        run()  # the first call allocates
        return run

    def _profile(self, model: ModelProto) -> list[Node]:
        with tempfile.TemporaryDirectory() as folder:
            session = open_session(
                model.SerializeToString(), self._threads, self._device, profile=Path(folder) / "profile"
            )
            call = bound(session, self._feed, self._device)
            for _ in repeats(SECONDS, MOST_PROFILED):
                call()
            return _nodes(json.loads(Path(session.end_profiling()).read_text()))


def onnx_timer(network: Network, batch: int = 1, threads: int = 1, device: Device = "cpu") -> Timer:
    """The timer of a network that came as ONNX, as OnnxTimer takes it, for the device."""
    timer = OnnxTimer(network, batch, threads, device)
    return timer if device == "cpu" else layers_by_torch(timer, network, batch, device)


def layers_by_torch(timer: OnnxTimer, network: Network, batch: int, device: Device) -> Apart:
    """Layers on the device in torch, which looks for the fastest kernels as ONNX Runtime does by default."""
    example = network.example(network.batch or batch).to(device)
    return Apart(TorchTimer(on_device(network.module, device), example, search=True), timer)


def _nodes(events: Sequence[dict[str, Any]]) -> list[Node]:
    """One Node per name, in the order of execution."""
    found: dict[str, Node] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX):
            continue
        name, about = name.removesuffix(_SUFFIX), event["args"]
        least = min(float(event["dur"]), found[name].microseconds if name in found else float("inf"))
        found[name] = Node(name, str(about.get("op_name")), least, _channels(about))
    return list(found.values())


def _channels(about: dict[str, Any]) -> int | None:
    """Of the first output; the runtime's blocked layouts show the padded number."""
    shapes = [shape for output in about.get("output_type_shape") or [] for shape in output.values()]
    return int(shapes[0][1]) if shapes and len(shapes[0]) == 4 else None


def _block(nodes: Sequence[Node], at: dict[str, Place], variant: Variant) -> int | None:
    """How many channels the runtime makes of fewer than any block that a pair asks for."""
    few = [path for path, cut in variant.items() if path in at and cut.rank <= BELOW[0]]
    made = {nodes[at[path].nodes[0]].channels for path in few}
    return min((channels for channels in made if channels is not None and channels > BELOW[0]), default=None)
