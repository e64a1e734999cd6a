"""One real PostgreSQL and one real Valkey for a whole pytest run, whatever the number of xdist workers.

The process that started them owns them (and takes them along if it is killed); xdist workers are told where
they are. Each xdist worker has a database of its own, copied from a template that Alembic migrated once, and
a Valkey database of its own.
"""

import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core import migrations
from app.embedded.children import wait_ready
from app.embedded.postgres import Postgres
from app.embedded.valkey import Valkey

ROLE = "basisconv"
TEMPLATE = "template_migrated"


@dataclass(frozen=True)
class Servers:
    """Where the servers are: plain texts, so that xdist can hand them to its workers."""

    folder: str
    admin_password: str
    role_password: str
    valkey_base: str  # ends in /, the database's number follows

    def postgres(self) -> Postgres:
        """A handle on the running server, to make and drop databases."""
        return Postgres(
            Path(self.folder) / "postgres", self.admin_password, Path(self.folder) / "postgres.log"
        )

    def new_database(self, name: str, *, migrated: bool = True) -> str:
        """Make a database, dropping one of that name, and give its URL."""
        postgres = self.postgres()
        postgres.drop_database(name)
        postgres.create_database(name, ROLE, template=TEMPLATE if migrated else "template0")
        return postgres.url(name, ROLE, self.role_password)

    def drop_database(self, name: str) -> None:
        self.postgres().drop_database(name)

    def broker_url(self, number: int) -> str:
        return f"{self.valkey_base}{number}"


class OwnedServers:
    """The servers of this pytest run, started by its first process and stopped by it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="basisconv-tests-"))
        self._folder.chmod(0o711)  # as root PostgreSQL runs as another uid; what lies inside is 0700
        admin, role, valkey = (secrets.token_urlsafe(24) for _ in range(3))
        self._postgres = Postgres(
            self._folder / "postgres", admin, self._folder / "postgres.log", durable=False
        )
        self._valkey = Valkey(self._folder / "valkey", valkey, self._folder / "valkey.log", durable=False)
        self.servers = Servers(str(self._folder), admin, role, self._valkey.url(0).removesuffix("0"))

    def start(self) -> Servers:
        for server in (self._postgres, self._valkey):
            server.prepare()
            server.start()
            wait_ready(server)
        self._postgres.ensure_database(TEMPLATE, ROLE, self.servers.role_password)
        migrations.upgrade(self._postgres.url(TEMPLATE, ROLE, self.servers.role_password))
        return self.servers

    def stop(self) -> None:
        for server in (self._valkey, self._postgres):
            with suppress(ProcessLookupError):
                server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
