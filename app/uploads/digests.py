"""Running SHA-256 sums of unfinished uploads, between their requests.

A hash's state cannot be stored, so this is a memory and no truth: where it lacks an upload (another process
took the earlier bytes, or this one was restarted), the bytes are read once more when all have come.
"""

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Any, Final

MOST: Final = 1000  # a few hundred bytes each


class RunningDigests:
    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Any]] = OrderedDict()
        self._lock = Lock()

    def take(self, upload_id: str, offset: int) -> Any:
        """The sum of the first `offset` bytes, or None where it is not known here."""
        with self._lock:
            known, digest = self._kept.pop(upload_id, (0, None))
        if offset == 0:
            return hashlib.sha256()
        return digest if known == offset else None

    def keep(self, upload_id: str, offset: int, digest: Any) -> None:
        with self._lock:
            self._kept[upload_id] = (offset, digest)
            self._kept.move_to_end(upload_id)
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
