"""A command's connection to the service, and how its failures become words and exit statuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import typer

from basisconv_client.cli import exits
from basisconv_client.cli.output import Output
from basisconv_client.client import Client
from basisconv_client.errors import BasisConvError


@dataclass
class Session:
    """The client, and what to say to somebody who presses Ctrl-C now."""

    client: Client
    output: Output
    after_interrupt: str = "Nothing was begun on the server that goes on."


@contextmanager
def session(output: Output) -> Iterator[Session]:
    """Signed in as the environment or the stored profile says."""
    after_interrupt = ""
    try:
        with Client(on_wait=output.waiting) as client:
            opened = Session(client, output)
            try:
                yield opened
            finally:
                after_interrupt = opened.after_interrupt
    except KeyboardInterrupt:
        output.say(f"Interrupted. {after_interrupt}")
        raise typer.Exit(exits.INTERRUPTED) from None
    except (BasisConvError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        output.error(error)
        raise typer.Exit(exits.code_of(error)) from error
