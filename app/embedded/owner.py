"""The owner's API key of an embedded service, kept in a file that only its user reads."""

import os
from pathlib import Path

from app.core.clock import SystemClock
from app.core.db import make_engine, make_sessions
from app.core.settings import Settings
from app.keys.service import ensure_owner_key


def key_file(settings: Settings) -> Path:
    return settings.var_dir.resolve() / "api-key"


def owner_key(settings: Settings) -> str:
    """The owner's key: made on the first start; made anew, the old one revoked, when its file was lost."""
    path = key_file(settings)
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=1)
    try:
        with make_sessions(engine).begin() as session:
            secret = ensure_owner_key(session, settings, SystemClock(), renew=not path.is_file())
            if secret is not None:
                write_private(path, secret + "\n")  # before the commit: a key in no file would be lost
        return path.read_text().strip()
    finally:
        engine.dispose()


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
