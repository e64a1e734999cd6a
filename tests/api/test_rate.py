"""Requests are counted for all processes together, and each for itself while Valkey is away."""

import secrets
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisAway

from app.core.rate import Allowance, MemoryMeter, Meter, SteadyMeter, ValkeyMeter
from app.embedded.children import wait_ready
from app.embedded.valkey import Valkey

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(params=["valkey", "memory"])
def meter(request: pytest.FixtureRequest) -> Meter:
    return ValkeyMeter(request.getfixturevalue("broker_url")) if request.param == "valkey" else MemoryMeter()


def _taken(meter: Meter, times: int, limit: int, name: str = "key") -> list[bool]:
    return [meter.take(name, limit).allowed for _ in range(times)]


@pytest.mark.parametrize("limit", [1, 7, 60, 997])
def test_exactly_the_limit_is_allowed_at_once(meter: Meter, limit: int) -> None:
    began = time.monotonic()
    taken = _taken(meter, limit + 1, limit)
    paid_meanwhile = int((time.monotonic() - began) * limit / 60)
    assert all(taken[:limit])
    assert paid_meanwhile or not taken[limit]


def test_what_is_left_and_when_more_is_allowed_is_told(meter: Meter) -> None:
    first = meter.take("key", 2)
    second = meter.take("key", 2)
    third = meter.take("key", 2)
    assert (first.allowed, first.left) == (True, 1)
    assert (second.allowed, second.left) == (True, 0)
    assert (third.allowed, third.left) == (False, 0)
    assert 25 <= third.retry_seconds <= 30


def test_it_is_paid_for_evenly(meter: Meter) -> None:
    """At 600 a minute one more is allowed after a tenth of a second."""
    _taken(meter, 700, 600)
    assert not all(_taken(meter, 5, 600))
    time.sleep(0.3)
    assert meter.take("key", 600).allowed


def test_a_refused_request_costs_nothing(meter: Meter) -> None:
    _taken(meter, 50, 2)
    assert meter.take("key", 2).retry_seconds <= 30


def test_two_processes_share_one_count(broker_url: str) -> None:
    meters = [ValkeyMeter(broker_url), ValkeyMeter(broker_url)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: meters[n % 2].take("key", 20).allowed, range(60)))
    assert 20 <= sum(taken) <= 25  # what was paid for meanwhile


class _Away:
    """A shared meter whose server is away, and which counts how often it is asked."""

    def __init__(self, fail: Callable[[], None]) -> None:
        self.fail, self.asked = fail, 0

    def take(self, name: str, limit: int) -> Allowance:
        self.asked += 1
        self.fail()
        return Allowance(True, limit, 0.0)


def test_without_valkey_the_process_counts_for_itself_and_does_not_wait_each_time() -> None:
    def fail() -> None:
        raise RedisAway("away")

    shared = _Away(fail)
    meter = SteadyMeter(shared, MemoryMeter())
    assert _taken(meter, 4, 3) == [True, True, True, False]
    assert shared.asked == 1


def test_requests_go_on_while_valkey_hangs_or_is_away_and_are_shared_again_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.rate._AWAY_SECONDS", 1.0)
    tmp_path.chmod(0o711)
    valkey = Valkey(tmp_path / "valkey", secrets.token_urlsafe(24), tmp_path / "log", durable=False)
    valkey.prepare()
    try:
        valkey.start()
        wait_ready(valkey)
        meter, sibling = (SteadyMeter(ValkeyMeter(valkey.url()), MemoryMeter()) for _ in range(2))
        assert [meter.take("key", 2).allowed, sibling.take("key", 2).allowed] == [True, True]
        assert not meter.take("key", 2).allowed
        assert valkey.process is not None
        valkey.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert [meter.take("key", 2).allowed for _ in range(3)] == [True, True, False]  # by itself
        assert time.monotonic() - began < 10
        valkey.process.send_signal(signal.SIGCONT)
        valkey.stop()
        assert [sibling.take("key", 2).allowed for _ in range(3)] == [True, True, False]
        valkey.start()
        wait_ready(valkey)
        time.sleep(1.1)
        assert [meter.take("new", 2).allowed, sibling.take("new", 2).allowed] == [True, True]
        assert [meter.take("new", 2).allowed, sibling.take("new", 2).allowed] == [False, False]
    finally:
        valkey.stop()


def test_a_valkey_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises((RedisAway, OSError)):
        ValkeyMeter(NOWHERE).take("key", 3)


def test_memory_forgets_who_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.rate._MOST_NAMES", 10)
    meter = MemoryMeter()
    for number in range(50):
        meter.take(f"key-{number}", 60_000)
        time.sleep(0.002)
    assert len(meter._paid_at) < 20
