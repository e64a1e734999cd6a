"""A peer that vanishes without a farewell: what it is asked ends in time, and works again when it is back."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import SystemClock
from app.core.db import make_engine
from app.core.events import BusListener, BusPublisher
from app.core.patience import patience
from app.core.queue import CeleryDoorbell
from app.core.settings import Settings
from app.embedded.processes import Worker
from app.jobs.tables import Job
from app.keys.service import ensure_owner_key
from app.main import build_services, create_app
from tests.support.processes import wait_until
from tests.support.proxy import Proxy, address_of, through
from tests.worker.rows import add_job, add_model, now
from worker import attempt
from worker.runtime import Runtime

LONG = 60  # seconds: an alarm, no measurement; without a bound it would be a quarter of an hour
CONNECT_SECONDS = "2"


@pytest.fixture
def hole(database_url: str) -> Iterator[Proxy]:
    with Proxy(address_of(database_url)) as proxy:
        yield proxy


@pytest.fixture
def distant(settings: Settings, hole: Proxy) -> Settings:
    """The service's database is where only the proxy leads."""
    url = through(settings.database_url.get_secret_value(), hole, connect_timeout=CONNECT_SECONDS)
    changed: dict[str, Any] = settings.model_dump() | {"database_url": url, "database_seconds": 1}
    return Settings(**changed)


def test_a_request_to_a_database_that_vanished_ends_with_a_problem_and_the_next_ones_work(
    distant: Settings, hole: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = build_services(distant)
    with services.sessions.begin() as session:
        secret = ensure_owner_key(session, distant, SystemClock())
    client = TestClient(create_app(distant, services), headers={"Authorization": f"Bearer {secret}"})
    assert client.get("/v1/models").status_code == 200
    hole.swallow()
    began = time.monotonic()
    for _ in range(2):  # on a connection that was trusted, and on a new one
        answer = client.get("/v1/models")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
    assert time.monotonic() - began < LONG
    hole.forward()
    assert client.get("/v1/models").status_code == 200
    monkeypatch.setattr("app.core.db._TRUSTED_SECONDS", 0.0)  # as if it had rested
    monkeypatch.setattr("app.core.db._PING_SECONDS", 1.0)
    hole.swallow()
    assert client.get("/v1/models").status_code == 503
    hole.forward()
    assert client.get("/v1/models").status_code == 200
    services.publisher.close()
    services.engine.dispose()


def test_the_kernel_gives_up_early_on_both_sides(distant: Settings) -> None:
    engine = make_engine(distant.database_url.get_secret_value(), pool_size=1)
    with engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=socket.dup(raw.fileno())) as ours:
            options = [
                ours.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
            ]
        assert options == [20_000, 15, 5]
        # Of the server's own sockets, here Unix sockets, only what is none of the kernel's can be seen.
        assert connection.scalar(text("SHOW client_connection_check_interval")) == "10s"
        assert connection.scalar(text("SHOW timezone")).lower() == "utc"  # type: ignore[union-attr]
    engine.dispose()


def test_an_answer_that_takes_longer_than_patience_costs_the_connection_and_nothing_else(
    settings: Settings,
) -> None:
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=1, answer_seconds=1)
    with pytest.raises(OperationalError, match="no answer within 1 s"), engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(3)"))
    with patience(5), engine.connect() as connection:
        assert connection.scalar(text("SELECT 7 FROM pg_sleep(1.5)")) == 7
    engine.dispose()


def test_a_lease_outlives_a_network_that_was_dead_for_longer_than_its_heartbeat_waits(
    distant: Settings, hole: Proxy, sessions: sessionmaker[Session]
) -> None:
    runtime = Runtime.build(distant, Event())
    lease = runtime.new_lease()
    columns = {"status": "running", "lease_owner": lease.owner, "lease_expires_at": lease.until(now())}
    job_id = add_job(sessions, add_model(sessions, "0" * 64), **columns)

    def until() -> Any:
        with sessions() as session:
            return session.get_one(Job, job_id).lease_expires_at

    with attempt.beating(runtime, Job, job_id, lease) as heartbeat:
        first = until()
        wait_until(lambda: until() > first, LONG)
        hole.swallow()
        time.sleep(1.3 * distant.lease_seconds)
        hole.forward()
        before = until()
        wait_until(lambda: until() > before, LONG)
        assert not heartbeat.lost.is_set()
    runtime.engine.dispose()


@pytest.mark.slow
def test_a_worker_whose_broker_vanished_hears_the_bell_again(
    settings: Settings, worker_process: Callable[..., Worker], broker_url: str
) -> None:
    doorbell = CeleryDoorbell(broker_url)
    with Proxy(address_of(broker_url)) as proxy, redis.Redis.from_url(broker_url) as valkey:
        way = SecretStr(through(broker_url, proxy))
        worker_process("quick", settings.model_copy(update={"broker_url": way}))
        proxy.swallow()
        time.sleep(1)
        proxy.forward()
        doorbell.ring("worker.inspect_model", "model_1")
        wait_until(lambda: not valkey.llen("quick"), 3 * LONG)
    doorbell.close()


def test_a_listener_whose_broker_vanished_finds_it_again(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.events._SILENT_SECONDS", 0.3)
    monkeypatch.setattr("app.core.events._RECONNECT_SECONDS", 0.1)
    publisher = BusPublisher(broker_url)

    async def heard(bell: asyncio.Event) -> None:
        """Rung for until it is heard, for a ring may come before the listener listens."""
        bell.clear()
        async with asyncio.timeout(LONG):
            while not bell.is_set():
                await asyncio.to_thread(publisher.wake, "job_1")
                await asyncio.sleep(0.05)

    async def watch(proxy: Proxy) -> None:
        listener = BusListener(through(broker_url, proxy))
        async with listener.running(), listener.watch("job_1") as bell:
            await heard(bell)
            await asyncio.sleep(1)  # nobody rings: it asks, is answered, and stays
            await heard(bell)
            proxy.swallow()
            await asyncio.sleep(0.1)
            proxy.forward()
            await heard(bell)

    with Proxy(address_of(broker_url)) as proxy:
        asyncio.run(watch(proxy))
    publisher.close()
