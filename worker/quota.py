"""The disk that one child may use, looked at by its supervisor: no limit of a process counts many files."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.core.errors import ResourceLimit

ENTRIES: Final = 10_000  # files and folders; a job writes some dozens
LOOK_SECONDS: Final = 1.0
NOTICED_BYTES: Final = 100_000_000  # a disk that others filled is not this child's doing


@dataclass
class Quota:
    """What a scratch folder may hold, and how much of its disk must stay free for everybody else."""

    folder: Path
    bytes: int
    reserve_bytes: int = 0
    entries: int = ENTRIES
    _looked: float = 0.0
    _free_before: int = field(init=False)

    def __post_init__(self) -> None:
        self._free_before = _free(self.folder)

    def breach(self) -> ResourceLimit | None:
        """Why the child must end, looked up at most once a second; None while all is well."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        free = _free(self.folder)
        if free < self.reserve_bytes and self._free_before - free > NOTICED_BYTES:
            return ResourceLimit(
                f"The work filled the server's disk: {free:,} bytes are free, "
                f"{self.reserve_bytes:,} must stay so.",
                hint="Try again with less data, or have the disk enlarged.",
                limit=self.reserve_bytes,
            )
        return self._count()

    def _count(self) -> ResourceLimit | None:
        entries = size = 0
        folders = [self.folder]
        while folders:
            try:
                with os.scandir(folders.pop()) as found:
                    for entry in found:
                        entries += 1
                        if entries > self.entries:
                            return ResourceLimit(
                                f"The work wrote more than {self.entries:,} files; no work of ours does.",
                                limit=self.entries,
                            )
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(Path(entry.path))
                        else:
                            size += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue  # the child goes on while we look
            except OSError:  # closed to us, or deeper than a path can be
                return ResourceLimit("The work made folders that cannot be read; no work of ours does.")
        if size > self.bytes:
            return ResourceLimit(
                f"The work took {size:,} bytes of disk; the limit is {self.bytes:,}.",
                hint="Try again with less data, or have the limit raised.",
                limit=self.bytes,
            )
        return None


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
