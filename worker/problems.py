"""Whatever a child's work raises, as a problem document with a stable code."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.core.errors import BY_CODE, Internal, OutOfMemory, Problem, ResourceLimit

DISK_FULL: Final = 75  # a child's exit status; EX_TEMPFAIL of sysexits.h
DISK_WAS_FULL: Final = "the disk of its machine was full"
NO_ROOM_BYTES: Final = 1_000_000  # less than this is no room
# How torch's CPU allocator, ONNX Runtime, the C library and C++ say that memory is used up.
_MEMORY: Final = (
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad allocation",
    "bad_alloc",
    "out of memory",
    "unable to allocate",
    "can't start new thread",
)
_LONGEST: Final = 2_000  # letters of a sentence or a name, however long a stranger's words in it are
_DISK: Final = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)


def as_problem(error: BaseException, task: Mapping[str, Any]) -> Problem:
    """Our own refusals as they are, the method's with public layer names, lack of memory by its signs."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, OSError) and error.errno in _DISK:
        return ResourceLimit(
            f"The work needed more disk than it may take: {_first_line(error)}.",
            hint="Try again with less data, or have the limit raised.",
        )
    if is_out_of_memory(error):
        return OutOfMemory(
            f"The work needed more memory than there is: {_first_line(error)}",
            hint="A smaller batch_size, smaller images or fewer of them need less.",
        )
    if hasattr(error, "code") and hasattr(
        error, "detail"
    ):  # basisconv's MethodError, without importing torch
        return _from_method(error, task)
    return Internal(f"The worker met an unexpected {type(error).__name__}: {_first_line(error)}")


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch.cuda's
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, OSError, ImportError)) and any(sign in text for sign in _MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Whether the machine has no room: nothing about the job, so another attempt may succeed."""
    met: BaseException | None = error
    while met is not None:
        if isinstance(met, OSError) and met.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(met):  # how Rust and C++ libraries pass it on
            return True
        met = met.__cause__ or met.__context__
    return False


def has_no_room(folder: Path) -> bool:
    """Whether the folder's disk is full, for errors that do not say so: a library that reads half a file."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < NO_ROOM_BYTES


def why_lost(error: BaseException) -> str:
    """Why a worker, not its child, could not go on with an attempt; for the job's owner."""
    if is_disk_full(error):
        return DISK_WAS_FULL
    return f"its worker met an error ({type(error).__name__})"


def _from_method(error: Any, task: Mapping[str, Any]) -> Problem:
    cls = BY_CODE.get(str(error.code), Internal)
    layer = getattr(error, "public_layer", None) or error.layer
    return cls(
        str(error.detail)[:_LONGEST],
        hint=error.hint,
        layer=None if layer is None else str(layer)[:_LONGEST],
        achievable=error.achievable,
        **({"task": task["task"]} if cls is Internal else {}),
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
