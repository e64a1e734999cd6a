"""What the children's logs hold that a person at the console wants to see: warnings, errors, jobs."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOUD = {"warning", "error", "critical"}
TOLD = ("job.started", "job.ended", "inspection.ended")
ROTATE_BYTES = 20_000_000
_NOISE = {"event", "level", "timestamp", "exception", "logger"}


@dataclass
class Relay:
    """Reads what was added to the logs since the last look."""

    logs: dict[str, Path]
    _read: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._read = {name: _size(log) for name, log in self.logs.items()}

    def lines(self) -> list[str]:
        """One short line for each new event worth telling."""
        found = []
        for name, log in self.logs.items():
            for line in self._new_lines(name, log):
                told = _told(line)
                if told is not None:
                    found.append(f"{name}: {told}")
        return found

    def _new_lines(self, name: str, log: Path) -> list[str]:
        if _size(log) <= self._read[name]:
            return []
        with log.open("rb") as file:
            file.seek(self._read[name])
            whole, _, _ = file.read().rpartition(b"\n")  # a line being written is read next time
        self._read[name] += len(whole) + 1 if whole else 0
        return whole.decode(errors="replace").splitlines()


def _told(line: str) -> str | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not (event.get("level") in LOUD or event.get("event") in TOLD):
        return None
    rest = " ".join(f"{name}={_short(value)}" for name, value in event.items() if name not in _NOISE)
    mark = f"{event['level']}: " if event.get("level") in LOUD else ""
    return f"{mark}{event.get('event')} {rest}".strip()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _size(log: Path) -> int:
    return log.stat().st_size if log.is_file() else 0


def rotate(log: Path) -> None:
    """Put a long log of earlier runs aside; one is kept."""
    if _size(log) > ROTATE_BYTES:
        log.replace(log.with_suffix(".log.1"))
