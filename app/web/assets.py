"""Static files as the pages ask for them: stylesheets as one, addresses that change with the content.

A browser draws nothing before the last stylesheet of a page is there, and each costs it more to fetch than to
read: a page has one.
"""

import hashlib
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).resolve().parent / "static"
SITE: Final = ("tokens", "base", "frame", "controls", "parts", "tables")  # what every page has, in this order
_SHEETS: Final = STATIC / "css"
_LASTING: Final = "public, max-age=31536000, immutable"  # a year, the longest that caches heed


@cache
def static(name: str) -> str:
    """A static file's address with its content's hash, so that a new version is never hidden by a cache."""
    return _address(name, (STATIC / name).read_bytes())


@cache
def stylesheet(*parts: str) -> str:
    """The address of what every page has and these parts, as one file."""
    name = "+".join(("site", *parts))
    return _address(f"css/{name}.css", joined(parts))


def _address(name: str, content: bytes) -> str:
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:10]}"


@lru_cache(maxsize=64)
def joined(parts: tuple[str, ...]) -> bytes:
    return b"\n".join((_SHEETS / f"{part}.css").read_bytes() for part in (*SITE, *parts))


def _parts(path: str) -> tuple[str, ...] | None:
    """Which parts an address joins: `css/site+form.css`. None for files as they lie there."""
    found = re.fullmatch(r"css/site((?:\+\w+)*)\.css", path)
    if found is None:
        return None
    parts = tuple(found[1].split("+")[1:])
    once = len(set(parts)) == len(parts)  # a stranger could ask for a sheet of any length
    return parts if once and all((_SHEETS / f"{part}.css").is_file() for part in parts) else None


class Assets(StaticFiles):
    """The folder of static files. What is asked for by its hash may be kept for good."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        parts = _parts(path)
        if parts is None:
            response = await super().get_response(path, scope)
        else:
            response = Response(joined(parts), media_type="text/css")
        if b"v" in parse_qs(scope["query_string"]) and response.status_code < 400:
            response.headers["Cache-Control"] = _LASTING
        return response
