"""Where a job computes, and with how many threads."""

from typing import Literal

import torch

from app.core.errors import Unavailable


def choose(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU where there is one and it is allowed, else the CPU."""
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if wanted == "cuda":
        raise Unavailable("This worker is set to compute on CUDA and finds no CUDA device.")
    return torch.device("cpu")


def prepare(threads: int) -> None:
    """Fixed threads, and full float32 precision, so that a figure from a GPU holds for the exported file."""
    torch.set_num_threads(max(threads, 1))
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
