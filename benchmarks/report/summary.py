"""Rows that differ in their seed only, as one line: mean and spread."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.raw import Key, Row

MEANS = ("macs_kept", "params_kept", "size_kept", "latency_ratio_1", "latency_ratio_32")


@dataclass(frozen=True)
class Line:
    """`accuracy` and `as_given` in percent, means over `count` seeds; `spread`: their sample standard
    deviation, None for a single one. `as_given`: before batch norms were re-estimated, None where they
    never are. `kept`: means of the figures named in MEANS. `codes`: the versions that measured it.
    """

    network: str
    method: str
    cut: float
    tuned: bool
    count: int
    accuracy: float
    spread: float | None
    as_given: float | None
    seconds: float
    kept: dict[str, float]
    codes: frozenset[str]


def summarise(rows: Iterable[Row]) -> list[Line]:
    """One line per network, method, cut and tuning, in the order in which they first appear."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        key = Key(row.key.network, row.key.method, row.key.cut, 0, row.key.tuned)
        groups.setdefault(key, []).append(row)
    return [_line(key, group) for key, group in groups.items()]


def _line(key: Key, rows: Sequence[Row]) -> Line:
    accuracies = [100 * row.values["accuracy"] for row in rows]
    given = [100 * row.values["accuracy_as_given"] for row in rows if "accuracy_as_given" in row.values]
    return Line(
        network=key.network,
        method=key.method,
        cut=key.cut,
        tuned=key.tuned,
        count=len(rows),
        accuracy=statistics.mean(accuracies),
        spread=statistics.stdev(accuracies) if len(rows) > 1 else None,
        as_given=statistics.mean(given) if given else None,
        seconds=statistics.mean(row.values["cpu_seconds"] for row in rows),
        kept={name: statistics.mean(row.values[name] for row in rows) for name in MEANS},
        codes=frozenset(row.code for row in rows),
    )


def binomial_error(accuracy: float, images: int) -> float:
    """Standard error in points of an accuracy in percent on so many images."""
    share = accuracy / 100
    return 100 * math.sqrt(share * (1 - share) / images)
