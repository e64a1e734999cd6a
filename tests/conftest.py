"""Fixtures that all tests share: real servers, a migrated database per test process, real workers."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from app.core.db import make_engine, make_sessions
from app.core.settings import Settings
from app.embedded.children import wait_ready
from app.embedded.processes import Worker
from tests.support.s3 import S3Server
from tests.support.servers import OwnedServers, Servers
from tests.support.service import Service, another_owner, running_service

_OWNED = pytest.StashKey[OwnedServers]()
# Files that run services of their own for long come first: at the end they would keep one process waiting
# alone. Those that share the lasting server come last, so that it is not there before; of them those of the
# browser, for Playwright leaves an event loop behind, beside which asyncio.run() refuses.
_FIRST = ("hostile", "faults", "run", "storage", "worker", "uploads")
_LAST = ("docs", "client", "e2e")
# Of the last folder's files those that take longest, so that no process is left with one at the end.
_LONGEST = (
    "test_accessibility.py",
    "test_pages.py",
    "test_main_path.py",
    "test_form.py",
    "test_batches.py",
    "test_plan.py",
    "test_webhooks.py",
    "test_uploads.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent

    def turn(item: pytest.Item) -> tuple[int, int]:
        folder, file = item.path.relative_to(root).parts[0], item.path.name
        if folder in _FIRST:
            return _FIRST.index(folder) - len(_FIRST), 0
        after = _LONGEST.index(file) if folder == _LAST[-1] and file in _LONGEST else len(_LONGEST)
        return _LAST.index(folder) + 1 if folder in _LAST else 0, after

    items.sort(key=turn)


def _started_servers(config: pytest.Config) -> Servers:
    """Start the servers on first use; the process that did so stops them when it ends."""
    if _OWNED not in config.stash:
        owned = OwnedServers()
        config.add_cleanup(owned.stop)
        owned.start()
        config.stash[_OWNED] = owned
    return config.stash[_OWNED].servers


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before an xdist worker starts: tell it where the servers are."""
    node.workerinput["servers"] = asdict(_started_servers(node.config))


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The real PostgreSQL and Valkey of this run."""
    told = getattr(request.config, "workerinput", {}).get("servers")
    return Servers(**told) if told else _started_servers(request.config)


@pytest.fixture(scope="session")
def process_number() -> int:
    """0, 1, … : which xdist worker this is."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="session")
def database_url(servers: Servers, process_number: int) -> str:
    """This test process's own migrated database."""
    return servers.new_database(f"test_{process_number}")


@pytest.fixture(scope="session")
def session_engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(session_engine: Engine) -> Iterator[Engine]:
    """The database, emptied before and after the test."""
    _empty(session_engine)
    yield session_engine
    _empty(session_engine)


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return make_sessions(engine)


@pytest.fixture
def broker_url(servers: Servers, process_number: int) -> Iterator[str]:
    """This test process's own Valkey database, empty at the start. Pub/sub channels are shared by all."""
    url = servers.broker_url(process_number)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def settings(engine: Engine, broker_url: str, database_url: str, tmp_path: Path) -> Settings:
    """Settings on the real servers, with short waits and a var folder of the test's own."""
    return make_settings(database_url, broker_url, tmp_path / "var")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3-compatible server for this test process."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "log")
    server.start()
    try:
        wait_ready(server)
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, reachable for this test and for the processes that it starts."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture
def worker_process(settings: Settings) -> Iterator[Callable[..., Worker]]:
    """`worker_process("jobs")` starts a real Celery worker, ready when it returns, stopped at the end."""
    with ExitStack() as stack:
        count = 0

        def start(queue: Literal["quick", "jobs"], chosen: Settings = settings) -> Worker:
            nonlocal count
            count += 1
            logs = chosen.var_dir / "log"
            logs.mkdir(parents=True, exist_ok=True)
            worker = Worker(chosen, queue, logs / f"worker-{queue}-{count}.log", number=count)
            worker.start()
            stack.callback(worker.stop)
            wait_ready(worker)
            return worker

        yield start


@pytest.fixture
def server(servers: Servers, process_number: int, tmp_path: Path, broker_url: str) -> Iterator[Service]:
    """The whole service as real processes on a free port, for this test alone."""
    yield from _service(servers, f"server_{process_number}", broker_url, tmp_path)


@pytest.fixture(scope="session")
def lasting_server(
    servers: Servers, process_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The same for all modules of this test process that ask for it: to start one takes a quarter minute."""
    # Valkey has 16 databases; the lower ones belong to `broker_url`.
    broker_url = servers.broker_url(8 + process_number)
    folder = tmp_path_factory.mktemp("lasting-server")
    yield from _service(servers, f"lasting_server_{process_number}", broker_url, folder)


@pytest.fixture(scope="module")
def shared_server(lasting_server: Service) -> Iterator[Service]:
    """The lasting server for an owner of the module's own, whose tests see each other's models and jobs.

    What a test stops or kills of the service it starts again.
    """
    with another_owner(lasting_server) as service:
        yield service


def make_settings(database_url: str, broker_url: str, var_dir: Path, **changed: Any) -> Settings:
    """Settings for tests: everything lost is found within a second or two."""
    values: dict[str, Any] = {
        "database_url": SecretStr(database_url),
        "broker_url": SecretStr(broker_url),
        "secret_key": SecretStr(secrets.token_urlsafe(32)),
        "var_dir": var_dir,
        "log_format": "console",
        "lease_seconds": 3,
        "heartbeat_seconds": 0.5,
        "reaper_seconds": 0.5,
        "ring_again_seconds": 2,
        "retry_seconds": 0.2,
        "grace_seconds": 10,
        "torch_threads": 1,
        "device": "cpu",
    }
    return Settings(**values | changed)


def _service(servers: Servers, name: str, broker_url: str, folder: Path) -> Iterator[Service]:
    database_url = servers.new_database(name)
    token = SecretStr(secrets.token_urlsafe(24))
    near = {"webhook_private_addresses": True, "webhook_seconds": 0.5}  # receivers are on this machine
    settings = make_settings(database_url, broker_url, folder / "var", sign_in_token=token, **near)
    try:
        with running_service(settings, folder / "log") as service:
            yield service
    finally:
        servers.drop_database(name)


def _empty(engine: Engine) -> None:
    with engine.begin() as connection:
        tables = connection.scalars(
            text(
                "SELECT tablename FROM pg_tables "
                "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            )
        ).all()
        if tables:
            names = ", ".join(f'"{table}"' for table in tables)
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
