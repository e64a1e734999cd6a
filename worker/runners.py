"""Things that answer to a batch of preprocessed images: a module in memory, or an exported file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from basisconv.formats import verify
from basisconv.formats.network import as_tuple

Array = npt.NDArray[Any]
Outputs = tuple[Array, ...]
CPU: Final = torch.device("cpu")


@dataclass(frozen=True)
class Runner:
    """`call` answers N×C×H×W float32 batches on `device`; `batch` is the only size it takes, None for any."""

    call: Callable[[Tensor], Outputs]
    batch: int | None = None
    device: torch.device = CPU


def of_module(module: nn.Module, device: torch.device, batch: int | None) -> Runner:
    """A module as it lies in memory, in eval mode, in float32."""

    def call(x: Tensor) -> Outputs:
        module.eval()
        with torch.no_grad():
            return tuple(output.float().cpu().numpy() for output in as_tuple(module(x)))

    return Runner(call, batch, device)


def of_onnx(path: Path, batch: int | None, threads: int) -> Runner:
    """An ONNX file in ONNX Runtime on the CPU."""
    run = verify.onnx_runner(path, threads)
    return Runner(lambda x: run(np.ascontiguousarray(x.numpy())), batch)


def of_pt2(path: Path, batch: int | None, threads: int) -> Runner:
    """A .pt2 that this project wrote (also the canonical form of an upload), run by torch on the CPU."""
    run = verify.pt2_runner(path, threads)
    return Runner(lambda x: run(np.ascontiguousarray(x.numpy())), batch)
