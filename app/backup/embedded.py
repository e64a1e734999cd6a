"""Backups of what `make run` started: its secrets belong to them, and its database must be started."""

import shutil
from pathlib import Path
from typing import Final

from app.backup.archive import Contents, Say, bring_back
from app.backup.tools import BackupFailed
from app.embedded.children import wait_ready
from app.embedded.folders import private_folder
from app.embedded.postgres import Postgres
from app.embedded.secrets import DATABASE, ROLE, Secrets, embedded_settings

_SECRETS: Final = "secrets"
_KEY: Final = "api-key"


def keep_secrets(var_dir: Path, folder: Path) -> None:
    """With another `secrets/service` every API key and session would be worthless."""
    kept = private_folder(folder / _SECRETS)
    for path in [*(var_dir / _SECRETS).iterdir(), var_dir / _KEY]:
        if path.is_file():
            shutil.copyfile(path, kept / path.name)
            (kept / path.name).chmod(0o600)


def bring_back_embedded(var_dir: Path, folder: Path, say: Say) -> Contents:
    """A whole `var` from a backup; the next `make run` serves it."""
    Contents.of(folder)  # a folder without a backup is told before anything is made
    if (var_dir / "postgres").exists():
        raise BackupFailed(f"There is a database in {var_dir} already; a backup goes into an empty folder.")
    private_folder(var_dir, 0o711)
    private_folder(var_dir / "log")
    _put_secrets(var_dir, folder)
    own = Secrets.of(var_dir)
    postgres = Postgres(var_dir / "postgres", own.postgres_admin, var_dir / "log" / "postgres.log")
    try:
        postgres.prepare()
        postgres.start()
        wait_ready(postgres)
        postgres.ensure_database(DATABASE, ROLE, own.postgres)
        return bring_back(embedded_settings(var_dir), folder, say)
    finally:
        postgres.stop()


def _put_secrets(var_dir: Path, folder: Path) -> None:
    target = private_folder(var_dir / _SECRETS)
    for path in (folder / _SECRETS).glob("*"):
        place = var_dir / _KEY if path.name == _KEY else target / path.name
        shutil.copyfile(path, place)
        place.chmod(0o600)
