"""docs/reference/server-commands.md: the server's part of `basisconv`, as `--help` tells it."""

from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

from app.cli import app
from reference.tables import GENERATED

HEAD = f"""# Commands of the server

These are there beside [the client's](../command-line.md) where the server is installed. They speak to the database and the broker of the environment ([settings](../settings.md)); without any, to those of `make run` in this folder.

{GENERATED}

"""


def page() -> str:
    command = get_command(app)
    context = Context(command, info_name="basisconv", obj={})
    told = get_docs_for_click(obj=command, ctx=context, name="basisconv")
    return f"{HEAD}## {told.partition('**Commands**:')[2].partition('## ')[2].strip()}\n"
