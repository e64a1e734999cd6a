"""A system clock that a test can set while the process runs: a file holds the seconds it is off."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.core.clock import SystemClock


def follow(file: Path) -> None:
    """From now on this process's clock is off by what stands in the file."""

    def now(_: SystemClock) -> datetime:
        off = 0.0
        with suppress(OSError, ValueError):
            off = float(file.read_text())
        return datetime.now(UTC) + timedelta(seconds=off)

    SystemClock.now = now  # type: ignore[method-assign]
