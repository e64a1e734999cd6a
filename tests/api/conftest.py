"""The application on real servers. Only the worker is missing: what it would write, tests write."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.settings import Settings
from app.core.unit import Services, transaction
from app.keys.service import create as create_key
from app.keys.service import ensure_owner_key
from app.main import build_services, create_app


@dataclass
class HandClock:
    """A clock that tests move."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.moment

    def advance(self, **by: float) -> None:
        self.moment += timedelta(**by)


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """structlog's default prints every local of a traceback, which takes half a minute for a template's."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, renderer])


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def services(settings: Settings, clock: HandClock) -> Iterator[Services]:
    built = build_services(settings, clock=clock)
    yield built
    built.publisher.close()
    built.engine.dispose()


@pytest.fixture
def app(settings: Settings, services: Services) -> FastAPI:
    return create_app(settings, services)


@pytest.fixture
def owner_secret(services: Services, settings: Settings, clock: HandClock) -> str:
    with services.sessions.begin() as session:
        secret = ensure_owner_key(session, settings, clock)
    assert secret is not None
    return secret


@pytest.fixture
def client(app: FastAPI, owner_secret: str) -> TestClient:
    """Signed in as the owner, who may do everything."""
    return _client(app, owner_secret)


@pytest.fixture
def stranger(app: FastAPI) -> TestClient:
    """Not signed in."""
    return _client(app, None)


@pytest.fixture
def other_owner(app: FastAPI, new_key: Callable[..., str]) -> TestClient:
    """Somebody else, with a working key."""
    return _client(app, new_key())


@pytest.fixture
def new_key(services: Services) -> Callable[..., str]:
    """`new_key(scopes=[…], expires_at=…)` makes a key for a new owner and gives its secret."""
    made = 0

    def make(**changed: Any) -> str:
        nonlocal made
        made += 1
        values = {"owner_id": None, "name": "test", "scopes": [], "expires_at": None} | changed
        secret = f"bc_test-{made}-{id(services)}"
        with transaction(services) as unit:
            create_key(unit, services.settings, secret=secret, **values)
        return secret

    return make


def _client(app: FastAPI, secret: str | None) -> TestClient:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return TestClient(app, headers=headers, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def live(app: FastAPI, owner_secret: str) -> Iterator[httpx2.Client]:
    """The application behind a real uvicorn: for streams, disconnects and bodies that stop half-way."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"Authorization": f"Bearer {owner_secret}"}
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20, trust_env=False
    ) as client:
        yield client
    server.should_exit = True
    thread.join(15)
    assert not thread.is_alive()
