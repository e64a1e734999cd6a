"""Where a job computes, where networks are timed, and with how many threads."""

from typing import Literal

import torch

from app.core.errors import Unavailable
from basisconv.formats.onnx_session import Device, NoCuda, check_cuda


def choose(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU where there is one and it is allowed, else the CPU."""
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if wanted == "cuda":
        raise Unavailable("This worker is set to compute on CUDA and finds no CUDA device.")
    return torch.device("cpu")


def check_latency(wanted: Device) -> None:
    """Raises Unavailable where networks can't be timed on the device that is set; no other replaces it."""
    if wanted == "cpu":
        return
    if not torch.cuda.is_available():
        raise Unavailable(
            "This worker is set to time networks on CUDA and finds no CUDA device.",
            hint="Give it a GPU, or set BASISCONV_LATENCY_DEVICE to cpu.",
        )
    try:
        check_cuda()
    except NoCuda as error:
        raise Unavailable(
            f"This worker is set to time networks on CUDA, where its ONNX Runtime cannot compute: {error}.",
            hint="Install onnxruntime-gpu in place of onnxruntime, for torch's version of CUDA.",
        ) from error


def prepare(threads: int) -> None:
    """Fixed threads, and full float32 precision, so that a figure from a GPU holds for the exported file."""
    torch.set_num_threads(max(threads, 1))
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
