"""Commands that several kinds of things have, each made once: list, show and delete."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Generic, TypeVar

import typer
from rich.console import RenderableType

from basisconv_client.cli import options
from basisconv_client.cli.output import Output
from basisconv_client.cli.session import session
from basisconv_client.client import Client
from basisconv_client.resources import Dataset, Model

U = TypeVar("U", Model, Dataset)

Status = Annotated[str | None, typer.Option(help="inspecting, ready or rejected.")]


@dataclass(frozen=True)
class Uploads(Generic[U]):
    """Networks or images: their words in the help, their calls, how they are shown."""

    prefix: str  # of their ids
    one: str
    many: str
    found: Callable[[Client, str], U]
    all: Callable[..., Iterator[U]]
    table: Callable[[Sequence[U]], RenderableType]
    shown: Callable[[U], Sequence[RenderableType]]


def add_list_and_show(app: typer.Typer, kind: Uploads[U]) -> None:
    name = typer.Argument(help=f"{kind.prefix}_…", metavar=kind.prefix.upper())

    @app.command("list", help=f"Your {kind.many}, newest first.")
    def list_(status: Status = None, limit: options.Most = 20, as_json: options.AsJson = False) -> None:
        told = Output(as_json)
        with session(told) as opened:
            found = list(islice(kind.all(opened.client, status=status, limit=min(limit, 100)), limit))
            told.result(found, kind.table(found))

    @app.command("show", help=f"One {kind.one}.")
    def show(id_: Annotated[str, name], as_json: options.AsJson = False) -> None:
        told = Output(as_json)
        with session(told) as opened:
            found = kind.found(opened.client, id_)
            told.result(found, *kind.shown(found))


def add_delete(app: typer.Typer, prefix: str, words: str, delete_one: Callable[[Client, str], None]) -> None:
    """`delete`, which takes one id or several."""
    names = typer.Argument(help=f"{prefix}_…", metavar=f"{prefix.upper()}…")

    @app.command("delete", help=words)
    def delete(ids: Annotated[list[str], names], as_json: options.AsJson = False) -> None:
        told = Output(as_json)
        with session(told) as opened:
            for one in ids:
                delete_one(opened.client, one)
            told.result({"deleted": ids}, f"Deleted: {', '.join(ids)}.")
