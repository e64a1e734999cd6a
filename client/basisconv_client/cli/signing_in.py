"""`basisconv login`, `logout` and `usage`."""

import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer

from basisconv_client import profile
from basisconv_client.cli import exits, options
from basisconv_client.cli.output import Output, safe
from basisconv_client.cli.session import session
from basisconv_client.client import Client
from basisconv_client.errors import BasisConvError, ServerTooOld
from basisconv_client.profile import Profile
from basisconv_client.transport import is_loopback


def login(
    server: Annotated[str, typer.Argument(help="Its address.", metavar="SERVER")] = "http://127.0.0.1:8000",
    key_file: Annotated[
        str | None, typer.Option(help="Where the key lies, such as var/api-key; left out, it is asked for.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Store a server and a key, once the server has accepted it.

    They lie in the configuration folder, readable for you alone. BASISCONV_SERVER and BASISCONV_API_KEY go
    before them. The key is never taken from the command line, where others on the machine could read it.

    Examples:

        basisconv login http://127.0.0.1:8000 --key-file var/api-key

        echo "$KEY" | basisconv login https://basisconv.example
    """
    told = Output(as_json)
    try:
        signing_in = Profile(_address(server), _key(key_file))
        _try(signing_in, told)
        file = profile.store(signing_in)
    except (BasisConvError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        told.error(error)
        raise typer.Exit(exits.code_of(error)) from error
    if signing_in.server.startswith("http:") and not is_loopback(signing_in.server):
        told.say("[yellow]Note:[/yellow] over http the key and your networks travel unencrypted.")
    told.result(
        {"server": signing_in.server, "file": str(file)},
        f"Signed in to {safe(signing_in.server)}; stored in {safe(str(file))}.",
    )


def logout(as_json: options.AsJson = False) -> None:
    """Forget the stored server and key."""
    told = Output(as_json)
    forgotten = profile.forget()
    told.result({"forgotten": forgotten}, "Signed out." if forgotten else "Nobody was signed in.")


def usage(as_json: options.AsJson = False) -> None:
    """Which server and key are used, what you use of it, and what the key may use."""
    told = Output(as_json)
    with session(told) as opened:
        found = opened.client.usage()
        stored, active = found["stored_bytes"], found["active_jobs"]
        told.result(
            {"server": opened.client.server, **found},
            f"{safe(opened.client.server)} as {found['key']} of {found['owner']}: "
            f"{stored['used']:,} bytes stored{_most(stored['limit'])}, "
            f"{active['used']} jobs active{_most(active['limit'])}",
        )


def _most(limit: int | None) -> str:
    return "" if limit is None else f" of {limit:,}"


def _address(given: str) -> str:
    address = given if "://" in given else f"https://{given}"
    url = httpx.URL(address)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{given} is no address such as https://basisconv.example")
    return address.rstrip("/")


def _key(file: str | None) -> str:
    if file is not None:
        key = Path(file).read_text().strip()
    elif sys.stdin.isatty():
        key = str(typer.prompt("API key", hide_input=True, err=True)).strip()
    else:
        key = sys.stdin.readline().strip()
    if not key.isascii() or not key.isprintable() or not key or " " in key:
        raise ValueError("That is no API key: it has one line of letters and digits.")
    return key


def _try(signing_in: Profile, told: Output) -> None:
    with Client(signing_in.server, signing_in.api_key, on_wait=told.waiting) as client:
        try:
            client.usage()
        except ServerTooOld:
            client.get("/v1/jobs", {"limit": 1})
