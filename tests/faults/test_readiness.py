"""`/readyz` while the real servers behind it are stopped, moved away or behind: what is wrong, in words."""

import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.api import readiness
from app.core import migrations
from app.core.settings import Settings
from app.embedded.children import wait_ready
from app.embedded.postgres import Postgres
from app.embedded.valkey import Valkey
from app.main import build_services, create_app
from tests.conftest import make_settings


@dataclass
class Bench:
    postgres: Postgres
    valkey: Valkey
    settings: Settings
    client: TestClient

    def ask(self) -> dict[str, Any]:
        """The answer of a look that was made now."""
        time.sleep(readiness.KEPT_SECONDS + 0.05)
        answer = self.client.get("/readyz")
        told: dict[str, Any] = answer.json()
        assert answer.status_code == (200 if told["status"] == "ok" else 503)
        assert self.client.get("/livez").status_code == 200
        return told

    def only_trouble(self) -> dict[str, str]:
        told = self.ask()
        assert told["status"] == "unavailable"
        (trouble,) = told["troubles"]
        assert told[trouble["check"]] == "unavailable"
        assert trouble["detail"].endswith(".")
        assert trouble["hint"].endswith(".")
        return {str(name): str(value) for name, value in trouble.items()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The application on a PostgreSQL and a Valkey that these tests may stop."""
    folder = tmp_path_factory.mktemp("readiness")
    folder.chmod(0o711)
    admin, role, password = (secrets.token_urlsafe(24) for _ in range(3))
    postgres = Postgres(folder / "postgres", admin, folder / "postgres.log", durable=False)
    valkey = Valkey(folder / "valkey", password, folder / "valkey.log", durable=False)
    for server in (postgres, valkey):
        server.prepare()
        server.start()
        wait_ready(server)
    postgres.ensure_database("basisconv", "basisconv", role)
    url = postgres.url("basisconv", "basisconv", role)
    migrations.upgrade(url)
    settings = make_settings(url, valkey.url(), folder / "var")
    services = build_services(settings)
    yield Bench(postgres, valkey, settings, TestClient(create_app(settings, services)))
    services.publisher.close()
    services.engine.dispose()
    valkey.stop()
    postgres.stop()


def test_everything_is_well(bench: Bench) -> None:
    told = bench.ask()
    assert told.pop("troubles") == []
    assert set(told.values()) == {"ok"}


def test_a_stopped_database_is_named_and_comes_back(bench: Bench) -> None:
    bench.postgres.stop()
    try:
        trouble = bench.only_trouble()
        assert trouble["check"] == "database"
        assert "PostgreSQL" in trouble["hint"]
    finally:
        bench.postgres.start()
        wait_ready(bench.postgres)
    assert bench.ask()["status"] == "ok"


def test_a_stopped_broker_is_named_and_comes_back(bench: Bench) -> None:
    bench.valkey.stop()
    try:
        trouble = bench.only_trouble()
        assert trouble["check"] == "broker"
        assert "waits" in trouble["hint"]
    finally:
        bench.valkey.start()
        wait_ready(bench.valkey)
    assert bench.ask()["status"] == "ok"


def test_a_database_that_was_not_migrated_says_which_revision_it_needs(bench: Bench) -> None:
    url = bench.settings.database_url.get_secret_value()
    _, head = migrations.revisions()
    assert head is not None
    migrations.downgrade(url)
    try:
        trouble = bench.only_trouble()
        assert trouble["check"] == "migrations"
        assert "no tables" in trouble["detail"]
        assert "basisconv migrate" in trouble["hint"]
    finally:
        migrations.upgrade(url)
    assert bench.ask()["status"] == "ok"


def test_a_database_of_a_newer_version_is_no_trouble_while_an_upgrade_lasts(bench: Bench) -> None:
    engine = bench.client.app.state.services.engine  # type: ignore[attr-defined]
    with engine.begin() as connection:
        head = connection.scalar(text("SELECT version_num FROM alembic_version"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'of_a_newer_version'"))
    try:
        assert bench.ask()["migrations"] == "ok"
    finally:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head})


def test_objects_that_are_moved_away_are_named(bench: Bench) -> None:
    objects, away = bench.settings.var_dir / "objects", bench.settings.var_dir / "away"
    objects.rename(away)
    objects.write_text("no folder any more")
    try:
        assert bench.only_trouble()["check"] == "storage"
    finally:
        objects.unlink()
        away.rename(objects)
    assert bench.ask()["status"] == "ok"


def test_a_disk_that_is_nearly_full_says_how_much_is_left(bench: Bench) -> None:
    total = shutil.disk_usage(Path(bench.settings.var_dir)).total
    wish = bench.settings.model_copy(update={"disk_reserve_bytes": total})
    services = build_services(wish)
    with TestClient(create_app(wish, services)) as client:
        answer = client.get("/readyz")
    (trouble,) = answer.json()["troubles"]
    assert (answer.status_code, trouble["check"]) == (503, "disk")
    assert f"{total / 1e9:.1f} GB" in trouble["detail"]


def test_however_often_it_is_asked_the_servers_are_looked_at_once_a_second() -> None:
    looks = []
    asked = readiness.Readiness({"storage": lambda: looks.append(1)})
    reports = [asked.look() for _ in range(50)]
    asked.close()
    assert (len(looks), all(report.is_ready for report in reports)) == (1, True)


def test_a_server_that_hangs_is_named_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.3)
    asked = readiness.Readiness({"storage": lambda: time.sleep(1.5), "disk": lambda: None})
    report = asked.look()
    asked.close()
    assert report.states == {"storage": "unavailable", "disk": "ok"}
    assert "within 0.3 s" in report.troubles[0].detail
