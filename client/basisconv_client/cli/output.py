"""Where words go: results to standard output, everything said meanwhile to standard error."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from basisconv_client.errors import BasisConvError, ServiceError
from basisconv_client.resources import Resource
from basisconv_client.uploading import Progress as Told

_WIDE = 200  # where nobody looks at a terminal, lines are not broken


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDE
    return Console(file=stream, highlight=False, width=width)


@dataclass
class Output:
    """One command's output: for people, or one JSON value for programs."""

    as_json: bool

    def __post_init__(self) -> None:
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    def result(self, value: Any, *shown: RenderableType) -> None:
        """What the command was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n")
            return
        for part in shown:
            self.out.print(part, soft_wrap=isinstance(part, str))

    def say(self, text: str) -> None:
        """What happens meanwhile."""
        self.err.print(text, soft_wrap=True)

    def error(self, error: Exception) -> None:
        if self.as_json:
            sys.stderr.write(json.dumps({"error": problem(error)}, ensure_ascii=False) + "\n")
            return
        code = f" ({error.code})" if isinstance(error, ServiceError) and error.code != "unknown" else ""
        self.say(f"[red]Error{code}:[/red] {safe(str(error) or type(error).__name__)}")

    def waiting(self, reason: str, seconds: float) -> None:
        self.say(f"[yellow]{safe(reason)}[/yellow]; trying again in {seconds:.1f} s")

    @contextmanager
    def transfer(self, what: str) -> Iterator[Told]:
        """A bar that follows bytes; gone when it is full."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal) as bars:
            bar = bars.add_task(safe(what), total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)

    def stages(self) -> Progress:
        """A bar that follows a job."""
        columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        return Progress(*columns, TimeElapsedColumn(), console=self.err, disable=not self.err.is_terminal)


def plain(value: Any) -> Any:
    """Resources as JSON values."""
    if isinstance(value, Resource):
        return value.json_object()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, ServiceError):
        return error.problem
    hint = {"hint": error.hint} if isinstance(error, BasisConvError) and error.hint else {}
    return {"code": type(error).__name__, "detail": str(error), **hint}


def safe(text: str) -> str:
    """Somebody else's text for the terminal: no markup, and nothing that could move the cursor."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))
