"""Run exported files as their users would, and time them: ONNX by ONNX Runtime, .pt2 by torch.

Answers are the CPU's; what takes time may be asked of a CUDA device too.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from basisconv.formats.network import Layout, as_tuple
from basisconv.formats.onnx_session import Device, bound, open_session

Array = NDArray[np.float32]
Outputs = tuple[NDArray[Any], ...]
Runner = Callable[[Array], Outputs]
Load = Callable[[Array], Callable[[], object]]
"""Brings images to where a network runs; each call of what it returns runs the network on them to the end."""
OnnxModel = Path | bytes | onnx.ModelProto
Pt2Model = Path | bytes | ExportedProgram


def outputs_onnx(
    model: OnnxModel, batches: Iterable[Array], batch: int | None = None, threads: int = 1
) -> Iterator[Outputs]:
    """The network's outputs for each batch of images, in ONNX Runtime.

    batches: N×C×H×W float32; an NHWC file gets them turned. batch: the size baked into the file, if any:
    each batch is then run in parts of that size, the last one filled up, and the filling cut off again.
    """
    return outputs(onnx_runner(model, threads), batches, batch)


def outputs_pt2(
    model: Pt2Model, batches: Iterable[Array], batch: int | None = None, threads: int = 1
) -> Iterator[Outputs]:
    """As outputs_onnx, for a .pt2 that this project wrote (never a stranger's: see pt2_reader)."""
    return outputs(pt2_runner(model, threads), batches, batch)


def outputs(run: Runner, batches: Iterable[Array], batch: int | None = None) -> Iterator[Outputs]:
    """One tuple of outputs per batch of images, whatever batch size the runner needs."""
    for images in batches:
        parts = [
            run_part(run, images[i : i + size], size)
            for size in [batch or len(images)]
            for i in range(0, len(images), size)
        ]
        yield tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def run_part(run: Runner, images: Array, size: int) -> Outputs:
    """At most `size` images, filled up to exactly that many with copies of the last."""
    count = len(images)
    filled = (
        np.concatenate([images, np.repeat(images[-1:], size - count, axis=0)]) if count < size else images
    )
    results = run(np.ascontiguousarray(filled))
    return tuple(_cut(result, count, size) for result in results)


def _cut(result: NDArray[Any], count: int, size: int) -> NDArray[Any]:
    """The rows of the real images; an output may hold several rows per image."""
    if result.ndim == 0 or len(result) % size:
        raise ValueError(f"an output of shape {result.shape} does not follow a batch of {size} images")
    return result[: len(result) // size * count]


def onnx_runner(model: OnnxModel, threads: int = 1, optimise: bool = True) -> Runner:
    """Calls of one ONNX Runtime session (CPU) with `threads` intra-op threads."""
    session = open_session(_onnx_source(model), threads, optimise=optimise)

    def run(images: Array) -> Outputs:
        results: list[NDArray[Any]] = session.run(None, _fed(session, images))
        return tuple(results)

    return run


def onnx_load(model: OnnxModel, threads: int = 1, device: Device = "cpu") -> Load:
    """A file to be timed in ONNX Runtime. Raises NoCuda where the device is not to be had."""
    session = open_session(_onnx_source(model), threads, device)
    return lambda images: bound(session, _fed(session, images), device)


def _fed(session: Any, images: Array) -> dict[str, Array]:
    """N×C×H×W images as the session's one input wants them."""
    (image,) = session.get_inputs()
    declared = [size if isinstance(size, int) else None for size in image.shape]
    turned = layout_of(declared, images.shape) == "NHWC"
    return {image.name: np.ascontiguousarray(images.transpose(0, 2, 3, 1) if turned else images)}


def pt2_runner(model: Pt2Model, threads: int = 1) -> Runner:
    """Calls of a .pt2 of ours on the CPU with `threads` threads."""
    return module_runner(_program(model).module(), threads)


def module_runner(module: torch.nn.Module, threads: int = 1) -> Runner:
    """Calls of a module on the CPU, as it is."""

    def run(images: Array) -> Outputs:
        with torch.no_grad(), torch_threads(threads):
            return tuple(value.numpy() for value in as_tuple(module(torch.from_numpy(images))))

    return run


def pt2_load(model: Pt2Model, threads: int = 1, device: Device = "cpu") -> Load:
    """A .pt2 of ours to be timed in torch, as it is; a program that is given is moved to the device."""
    module = move_to_device_pass(_program(model), device).module()

    def load(images: Array) -> Callable[[], None]:
        x = torch.from_numpy(images).to(device)

        def run() -> None:
            with torch.no_grad(), torch_threads(threads):
                module(x)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)

        return run

    return load


def layout_of(declared: list[int | None], shape: tuple[int, ...]) -> Layout:
    """NHWC when only that fits the file's declared sizes to N×C×H×W images of this shape."""
    turned = (shape[0], shape[2], shape[3], shape[1])

    def fits(sizes: tuple[int, ...]) -> bool:
        return all(own in (None, -1, given) for own, given in zip(declared[1:], sizes[1:], strict=True))

    return "NHWC" if fits(turned) and not fits(shape) else "NCHW"


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call: the median over the repeats, and half the range of the middle 50 %."""

    median_ms: float
    spread_ms: float


def latency_ms(
    model: OnnxModel, shape: tuple[int, int, int], batch: int = 1, repeats: int = 30, threads: int = 1
) -> Latency:
    """How long ONNX Runtime takes for one batch of C×H×W images."""
    return paired_latency_ms({"it": onnx_load(model, threads)}, shape, batch, repeats)["it"]


def paired_latency_ms(
    loads: Mapping[str, Load], shape: tuple[int, int, int], batch: int = 1, repeats: int = 30
) -> dict[str, Latency]:
    """Time several networks in turns, so that a busy machine slows all of them alike.

    By the clock, with the images and the answers where the networks run: no copy between devices counts.
    """
    images = np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)
    runs = {name: load(images) for name, load in loads.items()}
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # first calls allocate and plan
        run()
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seen[name].append(1000 * (time.perf_counter() - start))
    return {name: _summary(times) for name, times in seen.items()}


def _summary(times: list[float]) -> Latency:
    if len(times) == 1:
        return Latency(times[0], 0.0)
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(middle, (high - low) / 2)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch's number of threads, restored at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _onnx_source(model: OnnxModel) -> str | bytes:
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString()
    return str(model) if isinstance(model, Path) else model


def _program(model: Pt2Model) -> ExportedProgram:
    if isinstance(model, ExportedProgram):
        return model
    return torch.export.load(io.BytesIO(model.read_bytes() if isinstance(model, Path) else model))
