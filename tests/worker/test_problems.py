"""Errors that a full disk is behind are told from those that would come again."""

from pathlib import Path

import pytest

from worker.problems import DISK_WAS_FULL, is_disk_full, why_lost

FULL = Path("/dev/full")  # the kernel's own full disk: every write fails as on one


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_seen_behind_the_errors_that_it_causes() -> None:
    def save() -> None:
        try:
            FULL.write_bytes(b"x")
        except OSError as error:
            raise ValueError("half a file") from error

    with pytest.raises(ValueError, match="half a file") as caught:
        save()
    assert is_disk_full(caught.value)
    assert why_lost(caught.value) == DISK_WAS_FULL


def test_other_errors_are_named() -> None:
    assert not is_disk_full(FileNotFoundError(2, "No such file or directory"))
    assert why_lost(KeyError("x")) == "its worker met an error (KeyError)"
