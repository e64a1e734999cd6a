"""When a child ends: again, later each time, and at last not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.embedded.children import spawn
from app.embedded.supervisor import BACKOFF_SECONDS, STEADY_SECONDS, GaveUp, Supervisor


class ShortLived:
    """A real child that says something and fails at once."""

    name = "short-lived"

    def __init__(self, log: Path) -> None:
        self.log = log
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.starts += 1
        self.process = spawn([sys.executable, "-c", "print('no such file'); exit(3)"], log=self.log)
        self.process.wait(20)

    def is_ready(self) -> bool:
        return False

    def stop(self) -> None: ...


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_gives_up_after_the_last_wait_and_shows_the_end_of_the_log(tmp_path: Path) -> None:
    child, clock, said = ShortLived(tmp_path / "log"), Hands(), []
    child.start()
    supervisor = Supervisor([child], said.append, clock)
    for wait in BACKOFF_SECONDS:
        supervisor.look()
        clock.now += wait
        supervisor.look()
    assert child.starts == 1 + len(BACKOFF_SECONDS)
    with pytest.raises(GaveUp, match="no such file"):
        supervisor.look()
    assert "exit status 3" in said[0]


def test_it_waits_before_it_starts_a_child_again(tmp_path: Path) -> None:
    child, clock = ShortLived(tmp_path / "log"), Hands()
    child.start()
    supervisor = Supervisor([child], lambda line: None, clock)
    supervisor.look()
    clock.now += BACKOFF_SECONDS[0] / 2
    supervisor.look()
    assert child.starts == 1


def test_a_child_that_lived_long_starts_with_a_clean_record(tmp_path: Path) -> None:
    child, clock = ShortLived(tmp_path / "log"), Hands()
    child.start()
    supervisor = Supervisor([child], lambda line: None, clock)
    for _ in range(3 * len(BACKOFF_SECONDS)):
        clock.now += STEADY_SECONDS + 1
        supervisor.look()
        clock.now += BACKOFF_SECONDS[0]
        supervisor.look()
    assert child.starts == 1 + 3 * len(BACKOFF_SECONDS)
