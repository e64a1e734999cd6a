"""The most memory that a stretch of the work held at once."""

import contextlib
import resource
from pathlib import Path
from typing import Final

import torch

from worker.sandbox import reset_peak

_STATUS: Final = Path("/proc/self/status")


class Peaks:
    """`begin` a stretch, then ask for its peaks.

    Where the kernel lets no process reset its own high-water mark, or keeps none, a peak is the highest since
    the process began.
    """

    def begin(self) -> None:
        with contextlib.suppress(OSError):
            reset_peak()
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()

    def resident(self) -> int:
        """Bytes of the machine's memory."""
        with contextlib.suppress(OSError):
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in kibibytes

    def allocated(self) -> int | None:
        """Bytes of the GPU's memory in torch's tensors; None where no GPU was touched."""
        return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_initialized() else None
