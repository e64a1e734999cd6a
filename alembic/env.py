"""Alembic's door to the database. The URL: `-x url=…`, else the caller's, else BASISCONV_DATABASE_URL."""

import os
from importlib import import_module
from pathlib import Path

from sqlalchemy import Connection, create_engine, pool, text

import app
from alembic import context
from app.core.db import Base

ONE_AT_A_TIME = 7_183_201  # advisory lock: two starting services do not migrate at once

for tables in sorted(Path(app.__file__).parent.glob("*/tables.py")):
    import_module(f"app.{tables.parent.name}.tables")


def database_url() -> str:
    given = context.get_x_argument(as_dictionary=True).get("url") or context.config.attributes.get("url")
    url = given or os.environ.get("BASISCONV_DATABASE_URL")
    if not url:
        raise SystemExit("Which database? Give -x url=postgresql+psycopg://… or set BASISCONV_DATABASE_URL.")
    return str(url)


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
        context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(database_url(), poolclass=pool.NullPool)
    with engine.connect() as online:
        migrate(online)
    engine.dispose()
