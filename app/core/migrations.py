"""Bringing a database to the tables that this version expects, or back."""

from functools import cache
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

import app
from alembic import command


def configuration(database_url: str) -> Config:
    """Alembic's configuration for one database, wherever the project lies."""
    beside_package = Path(app.__file__).resolve().parents[1] / "alembic"
    folder = beside_package if (beside_package / "env.py").is_file() else Path.cwd() / "alembic"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    command.upgrade(configuration(database_url), revision)


def downgrade(database_url: str, revision: str = "base") -> None:
    command.downgrade(configuration(database_url), revision)


def check_no_drift(database_url: str) -> None:
    """Raise if the tables in the code and the migrated database differ."""
    command.check(configuration(database_url))


@cache
def revisions() -> tuple[frozenset[str], str | None]:
    """All revisions that this version knows, and the last one. Raises CommandError where there are none."""
    script = ScriptDirectory.from_config(configuration(""))
    return frozenset(found.revision for found in script.walk_revisions()), script.get_current_head()
