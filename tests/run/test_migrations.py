"""Migrations lead to the tables in the code, and back."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, inspect

from app.core import migrations
from tests.support.servers import Servers


@pytest.fixture
def empty_database(servers: Servers, process_number: int) -> Iterator[str]:
    name = f"empty_{process_number}"
    yield servers.new_database(name, migrated=False)
    servers.drop_database(name)


def _tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_up_down_up_ends_with_the_tables_of_the_code(empty_database: str) -> None:
    migrations.upgrade(empty_database)
    first = _tables(empty_database)
    migrations.downgrade(empty_database)
    assert _tables(empty_database) == {"alembic_version"}
    migrations.upgrade(empty_database)
    assert _tables(empty_database) == first
    migrations.check_no_drift(empty_database)  # raises what differs
