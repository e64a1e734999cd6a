"""Migrations for developers, on an embedded PostgreSQL of their own.

python scripts/migrations.py check              upgrade, downgrade, upgrade; tables and code agree
python scripts/migrations.py new "add batches"  write a migration from the difference; read it before use
"""

import argparse
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from app.core import migrations
from app.embedded.children import wait_ready
from app.embedded.postgres import Postgres


@contextmanager
def empty_database() -> Iterator[str]:
    """The URL of an empty database on a server that lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="basisconv-migrations-") as folder:
        Path(folder).chmod(0o711)  # as root PostgreSQL runs as another uid
        password = secrets.token_urlsafe(24)
        postgres = Postgres(Path(folder) / "postgres", password, Path(folder) / "log", durable=False)
        postgres.prepare()
        postgres.start()
        try:
            wait_ready(postgres)
            postgres.ensure_database("basisconv", "basisconv", password)
            yield postgres.url("basisconv", "basisconv", password)
        finally:
            postgres.stop()


def check(database_url: str) -> None:
    migrations.upgrade(database_url)
    migrations.downgrade(database_url)
    migrations.upgrade(database_url)
    migrations.check_no_drift(database_url)


def new(database_url: str, message: str) -> None:
    migrations.upgrade(database_url)
    command.revision(migrations.configuration(database_url), message, autogenerate=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=["check", "new"])
    parser.add_argument("message", nargs="?", default="")
    arguments = parser.parse_args()
    with empty_database() as database_url:
        if arguments.action == "check":
            check(database_url)
        else:
            new(database_url, arguments.message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
