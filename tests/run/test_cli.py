"""`basisconv migrate`, `check` and `keys` against the real servers."""

import os
import subprocess
import sys

from app.core.settings import Settings
from app.embedded.processes import as_environment


def _basisconv(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        capture_output=True,
        text=True,
        env=as_environment(settings, os.environ),
        timeout=60,
    )


def test_a_key_is_made_listed_without_its_secret_and_revoked(settings: Settings) -> None:
    made = _basisconv(settings, "keys", "create", "build server", "--scope", "read")
    assert made.returncode == 0, made.stderr
    key_id, secret = made.stdout.split()
    listed = _basisconv(settings, "keys", "list").stdout
    assert key_id in listed
    assert "active" in listed
    assert secret not in listed
    assert _basisconv(settings, "keys", "revoke", key_id).returncode == 0
    assert "revoked" in _basisconv(settings, "keys", "list").stdout


def test_check_names_the_server_that_does_not_answer(settings: Settings) -> None:
    assert _basisconv(settings, "check").returncode == 0
    broken = settings.model_copy(update={"broker_url": type(settings.broker_url)("redis://127.0.0.1:1/0")})
    checked = _basisconv(broken, "check")
    assert checked.returncode == 1
    assert checked.stderr.strip() == "The broker does not answer."


def test_migrate_on_a_migrated_database_changes_nothing_and_succeeds(settings: Settings) -> None:
    migrated = _basisconv(settings, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert "at head" in migrated.stdout


def test_migrate_without_a_database_says_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BASISCONV_")}
    missing = subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate"], capture_output=True, text=True, env=environment
    )
    assert missing.returncode == 2
    assert "BASISCONV_DATABASE_URL" in missing.stderr
