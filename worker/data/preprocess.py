"""Pixels to a network's floats, on its device, and passes over images in batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.data.spec import InputSpec

Array = npt.NDArray[Any]


def preprocess(x: Array | Tensor, spec: InputSpec, device: torch.device | str = "cpu") -> Tensor:
    """uint8 N×H×W×C to float32 N×C×H×W on `device`: (x / scale - mean) / std.

    float32 N×C×H×W passes as it is. A network's module takes N×C×H×W whatever its file's layout; see
    `in_file_layout` for running the file itself. Pixels travel to the device as bytes, a quarter of the
    floats, and keep the channels-last memory order they arrive in.
    """
    batch = torch.as_tensor(x if isinstance(x, Tensor) else np.array(x)).to(device)
    if batch.is_floating_point():
        return batch
    mean = torch.tensor(spec.mean, device=batch.device).view(1, -1, 1, 1)
    std = torch.tensor(spec.std, device=batch.device).view(1, -1, 1, 1)
    return (batch.permute(0, 3, 1, 2).to(torch.float32) / spec.scale - mean) / std


def in_file_layout(x: Tensor, spec: InputSpec) -> Tensor:
    """A preprocessed N×C×H×W batch as the network's file takes it, contiguous: N×H×W×C for such a file."""
    return (x.permute(0, 2, 3, 1) if spec.layout == "NHWC" else x).contiguous()


@dataclass(frozen=True)
class Batch:
    """Preprocessed images with their labels; the first `valid` rows count, others fill a fixed size."""

    x: Tensor
    y: Tensor | None
    valid: int


def batches(
    x: Array,
    y: Array | None,
    spec: InputSpec,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    fixed: bool = False,
) -> Iterator[Batch]:
    """One pass in order. `fixed`: the batch size is baked into the network, so the last batch is filled up
    with copies of its last image."""
    for begin in range(0, len(x), batch_size):
        rows = x[begin : begin + batch_size]
        valid = len(rows)
        if fixed and valid < batch_size:
            rows = np.concatenate([rows, np.repeat(rows[-1:], batch_size - valid, axis=0)])
        labels = None if y is None else _labels(y[begin : begin + batch_size], len(rows), device)
        yield Batch(preprocess(rows, spec, device), labels, valid)


def _labels(y: Array, count: int, device: torch.device | str) -> Tensor:
    filled = np.concatenate([y, np.repeat(y[-1:], count - len(y))])
    return torch.as_tensor(filled).to(device)
