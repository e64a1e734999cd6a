"""Keys as they were read within the last second, so that a busy key costs no query a request."""

import threading
from datetime import datetime, timedelta
from typing import Final

from app.keys.tables import ApiKey

KEPT: Final = timedelta(seconds=1)  # so long a key that another process revoked may still sign in here
_MOST: Final = 1_000


class RecentKeys:
    """Rows out of their session, by digest. What this process changes is forgotten at once."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[datetime, ApiKey]] = {}
        self._lock = threading.Lock()

    def get(self, digest: str, now: datetime) -> ApiKey | None:
        read_at, key = self._rows.get(digest, (None, None))
        # A clock that was put back makes nothing last longer.
        return key if read_at is not None and timedelta(0) <= now - read_at < KEPT else None

    def put(self, digest: str, key: ApiKey, read_at: datetime) -> None:
        """Keep a key that was asked for at this moment."""
        with self._lock:
            if len(self._rows) >= _MOST:
                self._rows.clear()
            self._rows[digest] = read_at, key

    def forget(self) -> None:
        with self._lock:
            self._rows.clear()
