"""Connections that died at rest cost no request, and those that live cost no question."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, text

from app.core.db import make_engine
from app.core.settings import Settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    yield made
    made.dispose()


@pytest.fixture
def pings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    asked: list[object] = []
    really = engine.dialect.do_ping
    monkeypatch.setattr(engine.dialect, "do_ping", lambda one: (asked.append(one), really(one))[1])
    return asked


def _pid(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def test_a_connection_that_the_server_ended_is_replaced_before_it_is_used(
    engine: Engine, services_engine: Engine
) -> None:
    first = _pid(engine)
    with services_engine.begin() as other:
        assert other.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
    assert _pid(engine) != first


@pytest.fixture
def services_engine(settings: Settings) -> Iterator[Engine]:
    made = make_engine(settings.database_url.get_secret_value(), pool_size=1)
    yield made
    made.dispose()


def test_a_connection_that_was_just_used_is_not_asked(engine: Engine, pings: list[object]) -> None:
    assert len({_pid(engine) for _ in range(5)}) == 1
    assert pings == []


def test_one_that_rested_long_is_asked(
    engine: Engine, pings: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pid(engine)
    monkeypatch.setattr("app.core.db._TRUSTED_SECONDS", 0.0)
    _pid(engine)
    assert len(pings) == 1


def test_one_that_was_closed_on_our_side_is_replaced(engine: Engine) -> None:
    first = _pid(engine)

    @event.listens_for(engine, "checkin")
    def _close(connection: object, _record: object) -> None:
        connection.close()  # type: ignore[attr-defined]

    _pid(engine)
    event.remove(engine, "checkin", _close)
    assert _pid(engine) != first
