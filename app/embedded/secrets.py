"""Secrets of the embedded service: made once, one file of mode 0600 each under `var/secrets`."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from app.core.settings import Settings
from app.embedded.folders import private_folder
from app.embedded.owner import write_private
from app.embedded.postgres import Postgres
from app.embedded.processes import PREFIX

DATABASE = ROLE = "basisconv"


@dataclass(frozen=True)
class Secrets:
    postgres_admin: str
    postgres: str
    valkey: str
    service: str  # keys the hashes of API keys and signs cookies

    @classmethod
    def of(cls, var_dir: Path) -> "Secrets":
        """Those of this folder, made where they are missing."""
        folder = private_folder(var_dir / "secrets")
        return cls(
            _secret(folder / "postgres-admin"),
            _secret(folder / "postgres"),
            _secret(folder / "valkey"),
            _secret(folder / "service"),
        )


def _secret(path: Path) -> str:
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


def embedded_settings(var_dir: Path) -> Settings:
    """For a command beside a running service: the environment's settings, or those of the embedded one.

    FileNotFoundError where neither is there. The broker's address is not known here and not needed.
    """
    var_dir = var_dir.resolve()
    if not given("database_url") and not (var_dir / "postgres" / "data").is_dir():
        raise FileNotFoundError(f"There is no database in {var_dir}")
    found: dict[str, str | SecretStr | Path] = {
        "var_dir": var_dir,
        "broker_url": SecretStr("redis://127.0.0.1:1/0"),
    }
    if not given("database_url"):
        own = Secrets.of(var_dir)
        postgres = Postgres(var_dir / "postgres", own.postgres_admin, var_dir / "log" / "postgres.log")
        found["database_url"] = SecretStr(postgres.url(DATABASE, ROLE, own.postgres))
        found["secret_key"] = SecretStr(own.service)
    return settings_with(found)


def given(name: str) -> bool:
    """Whether the environment sets this setting, so that nothing embedded takes its place."""
    return bool(os.environ.get(PREFIX + name.upper()))


def settings_with(found: dict[str, str | SecretStr | Path]) -> Settings:
    """Settings from the environment, and from `found` where the environment says nothing."""
    return Settings(**{name: value for name, value in found.items() if not given(name)})  # type: ignore[arg-type]
