"""What comes round in the web process: at one of them at a time, whatever a round meets."""

import threading
from datetime import datetime

import pytest

from app.core.rounds import Rounds
from app.core.unit import Services
from app.main import rounds_of
from tests.support.processes import wait_until


class Counting(Rounds):
    name = "counting"
    lock = 0x436F756E  # "Coun"

    def __init__(self, services: Services) -> None:
        super().__init__(services.sessions, services.clock, 0.01)
        self.began: list[datetime] = []
        self.go_on = threading.Event()

    def _round(self, now: datetime) -> None:
        self.began.append(now)
        assert self.go_on.wait(30)


class Failing(Counting):
    name = "failing"
    lock = 0x4661696C  # "Fail"

    def _round(self, now: datetime) -> None:
        self.began.append(now)
        raise RuntimeError("this round meets something")


def test_a_second_process_leaves_the_round_to_the_first(services: Services) -> None:
    first, second = Counting(services), Counting(services)
    thread = threading.Thread(target=first.sweep)
    thread.start()
    wait_until(lambda: len(first.began) == 1, 30)
    second.sweep()
    assert second.began == []
    first.go_on.set()
    thread.join(30)
    second.go_on.set()
    second.sweep()
    assert second.began == [services.clock.now()]


def test_a_round_that_fails_is_not_the_last_and_leaves_the_lock(services: Services) -> None:
    stop, failing = threading.Event(), Failing(services)
    thread = threading.Thread(target=failing.run, args=(stop,))
    thread.start()
    wait_until(lambda: len(failing.began) >= 3, 30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError):
        failing.sweep()


def test_names_and_locks_are_all_different(services: Services) -> None:
    """Two with one lock would take turns, and the slower one keep the other from its work."""
    parts = rounds_of(services)
    assert len({part.name for part in parts}) == len({part.lock for part in parts}) == len(parts)
