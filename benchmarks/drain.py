"""The library's long computations are generators that yield progress and return their result."""

from collections.abc import Callable, Generator
from typing import TypeVar

from basisconv import Progress

Result = TypeVar("Result")


def drain(
    steps: Generator[Progress, None, Result], report: Callable[[Progress], None] = lambda _: None
) -> Result:
    """Run to the end and give the result."""
    while True:
        try:
            report(next(steps))
        except StopIteration as end:
            return end.value
