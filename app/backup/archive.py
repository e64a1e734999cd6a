"""A backup is a folder: a dump of the database, the objects that its rows name, and a list of what is there.

Dump and list of objects come from one snapshot, so they agree however busy the service is. Objects never
change, so the next backup into the same folder copies only new ones.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select, text
from sqlalchemy.engine import Connection

from app.backup.tools import BackupFailed, run
from app.core.db import make_engine
from app.core.patience import UPKEEP_SECONDS
from app.core.settings import Settings
from app.storage.keys import object_key
from app.storage.references import OBJECTS
from app.storage.store import Store, open_store

DUMP: Final = "database.dump"
CONTENTS: Final = "contents.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """What a backup holds; written last, so a backup without it is not whole."""

    made_at: str
    revision: str
    rows: dict[str, int]
    objects: list[str]
    vanished: list[str]  # named by a row of the snapshot, and deleted before they were copied

    @classmethod
    def of(cls, folder: Path) -> "Contents":
        try:
            return cls(**json.loads((folder / CONTENTS).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise BackupFailed(f"There is no whole backup in {folder}: {error}") from error


def back_up(settings: Settings, folder: Path, say: Say) -> Contents:
    """Make or renew the backup in this folder, beside a running service."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    url = settings.database_url.get_secret_value()
    engine = make_engine(url, pool_size=1, answer_seconds=UPKEEP_SECONDS)
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            revision = str(connection.scalar(text("SELECT version_num FROM alembic_version")))
            snapshot = str(connection.scalar(text("SELECT pg_export_snapshot()")))
            draft = folder / f".{DUMP}"
            run("pg_dump", url, "--format=custom", f"--snapshot={snapshot}", f"--file={draft}")
            rows, wanted = _rows(connection), sorted(_named(connection))
    finally:
        engine.dispose()
    say(f"The database is dumped; {len(wanted):,} objects belong to it.")
    (folder / CONTENTS).unlink(missing_ok=True)
    draft.replace(folder / DUMP)
    vanished = _copy_objects(open_store(settings.objects_url()), folder, wanted)
    contents = Contents(
        made_at=datetime.now(UTC).isoformat(),
        revision=revision,
        rows=rows,
        objects=[sha256 for sha256 in wanted if sha256 not in vanished],
        vanished=vanished,
    )
    _forget_others(folder, set(contents.objects))
    (folder / CONTENTS).write_text(json.dumps(asdict(contents), indent=1) + "\n")
    return contents


def _rows(connection: Connection) -> dict[str, int]:
    tables = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return {
        name: connection.scalar(text(f'SELECT count(*) FROM "{name}"')) or 0  # noqa: S608 - as the catalog has it
        for name in connection.scalars(tables).all()
    }


def _named(connection: Connection) -> set[str]:
    found: set[str] = set()
    for column in OBJECTS:
        found |= set(connection.scalars(select(column).where(column.is_not(None))))
    return found


def _copy_objects(store: Store, folder: Path, wanted: list[str]) -> list[str]:
    """Copy what is not there yet; the hashes of those that the store has no more."""
    vanished = []
    for sha256 in wanted:
        target = folder / object_key(sha256)
        if target.is_file():
            continue
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = target.with_name(f".{sha256}")
        try:
            store.download_to(sha256, draft)
        except FileNotFoundError:
            vanished.append(sha256)
            draft.unlink(missing_ok=True)
            continue
        _settle(draft, target, sha256)
    return vanished


def _settle(draft: Path, target: Path, sha256: str) -> None:
    found = _sha256_of(draft)
    if found != sha256:
        draft.unlink()
        raise BackupFailed(f"The object {sha256} is damaged in the store: its bytes have the hash {found}.")
    draft.chmod(0o600)
    draft.replace(target)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget_others(folder: Path, kept: set[str]) -> None:
    """Delete objects of earlier backups that no row names any more."""
    for path in _objects(folder):
        if path.name not in kept:
            path.unlink()


def _objects(folder: Path) -> Iterator[Path]:
    yield from (path for path in (folder / "objects").glob("sha256/*/*") if path.is_file())


def bring_back(settings: Settings, folder: Path, say: Say) -> Contents:
    """Put a backup into an empty database and a store. Nothing that is there already is overwritten."""
    contents = Contents.of(folder)
    url = settings.database_url.get_secret_value()
    engine = make_engine(url, pool_size=1, answer_seconds=UPKEEP_SECONDS)
    try:
        _refuse_used(engine)
        _put_objects(open_store(settings.objects_url()), folder, contents.objects)
        say(f"{len(contents.objects):,} objects are back.")
        # One transaction: a database that is half there would look whole to the service.
        run(
            "pg_restore",
            url,
            *("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"),
            f"--dbname={engine.url.database}",
            folder / DUMP,
        )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            found = _rows(connection)
            # Half-come uploads and half-done jobs begin anew: their pieces and checkpoints are not kept.
            for unfinished in ("uploads", "job_checkpoints"):
                connection.execute(text(f"DELETE FROM {unfinished}"))  # noqa: S608
            connection.execute(text("ANALYZE"))  # without it the first lists are slow
    finally:
        engine.dispose()
    if found != contents.rows:
        raise BackupFailed(f"Other rows came back than were saved: {found}, not {contents.rows}.")
    return contents


def _refuse_used(engine: Engine) -> None:
    with engine.connect() as connection:
        tables = connection.scalar(
            text(
                "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
        )
    if tables:
        raise BackupFailed(f"The database has {tables} tables already; a backup goes into an empty one.")


def _put_objects(store: Store, folder: Path, wanted: list[str]) -> None:
    """Before the rows: a row that is there has its object."""
    for sha256 in wanted:
        if store.exists(sha256):
            continue
        path = folder / object_key(sha256)
        if not path.is_file():
            raise BackupFailed(f"The backup lacks the object {sha256}.")
        if (found := store.put_file(path).sha256) != sha256:
            store.delete(found)
            raise BackupFailed(f"The object {sha256} is damaged in the backup.")
