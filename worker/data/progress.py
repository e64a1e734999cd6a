"""Progress of an inspection, told at most once a percent."""

from collections.abc import Callable
from typing import Any

Report = Callable[[dict[str, Any]], None]


def between(report: Report, begin: float, end: float) -> Report:
    """Tell a part of the work as its share of the whole."""

    def told(message: dict[str, Any]) -> None:
        report(message | {"fraction": begin + (end - begin) * message["fraction"]})

    return told


class Progress:
    """Counts work done, in whatever unit, and reports the share of the whole."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total = report, max(total, 1)
        self._done, self._told = 0, -1

    def add(self, amount: int) -> None:
        self._done += amount
        percent = min(100 * self._done // self._total, 100)
        if percent > self._told:
            self._told = percent
            self._report({"type": "progress", "fraction": percent / 100})
