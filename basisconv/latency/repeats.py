"""How often to time: by what this process computed, since on a busy machine the clock says little."""

import time
from collections.abc import Iterator
from typing import Final

LEAST_RUNS: Final = 6
PATIENCE: Final = 10  # times as long as on a machine that does nothing else


def repeats(seconds: float, most: int) -> Iterator[int]:
    """At least six, and more until `seconds` of processor time or ten times that by the clock are spent."""
    began, computed = time.monotonic(), time.process_time()
    for done in range(most):
        spent = max(time.process_time() - computed, (time.monotonic() - began) / PATIENCE)
        if done >= LEAST_RUNS and spent > seconds:
            return
        yield done
