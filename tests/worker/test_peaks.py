"""The peak of a stretch of work is that stretch's own."""

from pathlib import Path

import numpy as np
import pytest

from worker.peaks import Peaks

BIG = 200_000_000


def _resettable() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def test_memory_that_a_stretch_held_for_a_moment_is_in_its_peak() -> None:
    peaks = Peaks()
    peaks.begin()
    before = peaks.resident()
    held = np.ones(BIG, np.uint8)
    del held
    assert peaks.resident() > before + 0.9 * BIG


@pytest.mark.skipif(not _resettable(), reason="this kernel lets no process reset its peak")
def test_the_next_stretch_does_not_inherit_it() -> None:
    peaks = Peaks()
    held = np.ones(BIG, np.uint8)
    del held
    high = peaks.resident()
    peaks.begin()
    assert peaks.resident() < high - 0.5 * BIG
