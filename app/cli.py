"""The server's part of the command line: `basisconv serve`, `migrate`, `keys`, `demo`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from app.core.settings import Settings
    from app.core.unit import Unit

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Makes trained networks small and fast.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
app.add_typer(keys, name="keys")

# Commands import what they need when they run: `--help` stays quick, and none needs another's extras.


@app.command()
def serve(
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Port to serve on.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    var: Annotated[Path, typer.Option(envvar="BASISCONV_VAR_DIR", help="Folder that holds all data.")] = Path(
        "var"
    ),
    stop_with_parent: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve everything from this machine until Ctrl-C, with an embedded PostgreSQL and Valkey."""
    from app.embedded.launcher import Options
    from app.embedded.launcher import serve as run

    raise typer.Exit(run(Options(var, port, host, stop_with_parent), typer.echo))


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="Where to.")] = "head",
) -> None:
    """Bring the database of BASISCONV_DATABASE_URL to the tables of this version."""
    from app.core import migrations

    migrations.upgrade(_database_url(), revision)
    typer.echo(f"The database is at {revision}.")


@app.command()
def demo() -> None:
    """Compress the bundled example on a running server, or on one started for as long as it takes."""
    from app.demo import main as run

    raise typer.Exit(run())


@app.command()
def check() -> None:
    """Whether database and broker answer: 0, or 1 with the names of those that do not."""
    from app.core.settings import load_settings

    settings = load_settings()
    answers = {
        "database": _try_database(settings.database_url.get_secret_value()),
        "broker": _try_broker(settings.broker_url.get_secret_value()),
    }
    silent = [name for name, answered in answers.items() if not answered]
    for name in silent:
        typer.echo(f"The {name} does not answer.", err=True)
    raise typer.Exit(1 if silent else 0)


def _try_database(url: str) -> bool:
    from sqlalchemy import text

    from app.core.db import make_engine

    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(text("SELECT 1")) == 1)
    except OperationalError:
        return False
    finally:
        engine.dispose()


def _try_broker(url: str) -> bool:
    import redis

    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        try:
            return client.ping() is True
        except redis.RedisError:
            return False


@app.command()
def backup(
    folder: Annotated[
        Path, typer.Argument(help="Made or renewed; the next time only new objects are copied.")
    ],
) -> None:
    """Copy the database and all objects into a folder, beside a running service."""
    from app.backup.archive import back_up
    from app.backup.embedded import keep_secrets
    from app.embedded.secrets import given

    with _telling_failures():
        settings = _settings()
        contents = back_up(settings, folder, typer.echo)
        if given("database_url"):
            typer.echo("Keep BASISCONV_SECRET_KEY too: without it the API keys in the backup are worthless.")
        else:
            keep_secrets(settings.var_dir, folder)
    if contents.vanished:
        typer.echo(
            f"{len(contents.vanished)} objects were deleted meanwhile; run it again to be whole.", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"The backup in {folder} is whole: {contents.rows['jobs']:,} jobs.")


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="Where a backup lies.")]) -> None:
    """Put a backup into an empty database and store: the environment's, or a new var folder's."""
    from app.backup.archive import bring_back
    from app.backup.embedded import bring_back_embedded
    from app.embedded.secrets import given

    with _telling_failures():
        if given("database_url"):
            contents = bring_back(_settings(), folder, typer.echo)
        else:
            var_dir = Path(os.environ.get("BASISCONV_VAR_DIR", "var")).resolve()
            contents = bring_back_embedded(var_dir, folder, typer.echo)
    typer.echo(f"The backup of {contents.made_at} is back: {contents.rows['jobs']:,} jobs.")


@contextmanager
def _telling_failures() -> Iterator[None]:
    from app.backup.tools import BackupFailed
    from app.embedded.children import NotStarted

    try:
        yield
    except (BackupFailed, NotStarted, OSError) as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(1) from problem
    except OperationalError as problem:
        typer.echo("The database does not answer. Is `make run` running?", err=True)
        raise typer.Exit(1) from problem


@keys.command("create")
def create_key(
    name: str,
    scope: Annotated[list[str] | None, typer.Option(help="Repeat for several; none: all but admin.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    owner: Annotated[str | None, typer.Option(help="owner_…; left out: the first owner.")] = None,
    new_owner: Annotated[bool, typer.Option(help="For a new owner, who sees nothing of others.")] = False,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes it may store; 0: any.")] = None,
    active_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs at once; 0: any number.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="0: any number.")] = None,
) -> None:
    """Make an API key and print its id and secret, once."""
    from app.core.security import ALL_SCOPES, new_secret
    from app.keys import repository, service

    unknown = sorted(set(scope or []) - set(ALL_SCOPES))
    if unknown:
        raise typer.BadParameter(f"unknown scope {', '.join(unknown)}; there are {', '.join(ALL_SCOPES)}")
    if owner is not None and new_owner:
        raise typer.BadParameter("--owner and --new-owner exclude each other")
    with _keyring() as (unit, settings):
        if owner is not None and not repository.is_owner(unit.session, owner):
            raise typer.BadParameter(f"no key belongs to {owner[:64]!r}")
        first = repository.first_owner(unit.session)
        secret = new_secret()
        key = service.create(
            unit,
            settings,
            owner_id=None if new_owner else owner or first,
            name=_readable(name),
            scopes=scope or [],
            expires_at=unit.now + timedelta(days=days) if days else None,
            secret=secret,
            maker_id=first,
            limits={
                "stored_bytes": stored_bytes,
                "active_jobs": active_jobs,
                "requests_per_minute": requests_per_minute,
            },
        )
        key_id = key.id
    typer.echo(f"{key_id}  {secret}")


def _readable(name: str) -> str:
    from app.core.schemas import NAME_CHARACTERS, readable

    try:
        checked = readable(name)
    except ValueError as error:
        raise typer.BadParameter(f"the name {error}") from error
    if not 0 < len(checked) <= NAME_CHARACTERS:
        raise typer.BadParameter(f"the name has {len(checked)} characters; 1 to {NAME_CHARACTERS} are kept")
    return checked


@keys.command("list")
def list_keys() -> None:
    """Show all keys of the service, without their secrets."""
    from sqlalchemy import select

    from app.keys.tables import ApiKey

    with _keyring() as (unit, _):
        for key in unit.session.scalars(select(ApiKey).order_by(ApiKey.id)):
            expired = key.expires_at is not None and key.expires_at <= unit.now
            state = "revoked" if key.revoked_at else "expired" if expired else "active"
            scopes = ",".join(key.scopes) or "all but admin"
            typer.echo(f"{key.id}  {key.owner_id}  {state:7}  {key.name}  [{scopes}]")


@keys.command("revoke")
def revoke_key(key_id: str) -> None:
    """End a key at once."""
    from app.keys import repository, service

    with _keyring() as (unit, _):
        key = repository.by_id(unit.session, key_id)
        if key is None:
            raise typer.BadParameter(f"There is no key {key_id[:64]!r}.")
        service.revoke(unit, key)
    typer.echo(f"{key_id} is revoked.")


@contextmanager
def _keyring() -> Iterator[tuple["Unit", "Settings"]]:
    """One transaction on the service's database: the environment's, or the embedded one while it runs."""
    from app.core.db import make_engine, make_sessions
    from app.core.unit import Unit

    settings = _settings()
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=1)
    try:
        with make_sessions(engine).begin() as session:
            yield Unit(session, datetime.now(UTC)), settings
    except OperationalError as problem:
        typer.echo("The database does not answer. Is `make run` running?", err=True)
        raise typer.Exit(1) from problem
    finally:
        engine.dispose()


def _settings() -> "Settings":
    from app.embedded.secrets import embedded_settings

    try:
        return embedded_settings(Path(os.environ.get("BASISCONV_VAR_DIR", "var")))
    except FileNotFoundError as problem:
        typer.echo(f"{problem}. Set BASISCONV_DATABASE_URL, or start `make run` first.", err=True)
        raise typer.Exit(2) from problem


def _database_url() -> str:
    url = os.environ.get("BASISCONV_DATABASE_URL")
    if not url:
        typer.echo("Set BASISCONV_DATABASE_URL to postgresql+psycopg://user:password@host/name.", err=True)
        raise typer.Exit(2)
    return url


def main() -> None:
    app()


if __name__ == "__main__":
    main()
