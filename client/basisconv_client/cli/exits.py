"""What the exit status says; scripts rely on these numbers."""

from typing import Final

import httpx

from basisconv_client.errors import (
    AccessDenied,
    BasisConvError,
    NotFound,
    NotSignedIn,
    RequestRefused,
    ServiceUnavailable,
    Unreachable,
)

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
DENIED: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5
MISSED: Final = 6
INTERRUPTED: Final = 130

MEANINGS: Final = {
    DONE: "done",
    FAILED: "the job or the plan failed or was cancelled, an upload was rejected, a quota is used up, or the "
    "server cannot do that",
    USAGE: "the command line, a file or the request is not valid",
    DENIED: "not signed in, or the key may not do that",
    NOT_FOUND: "there is no such thing on the server",
    UNREACHABLE: "the server does not answer, still after some tries",
    MISSED: "the job succeeded and missed its target or a limit; only with `--strict`",
    INTERRUPTED: "interrupted by Ctrl-C; the job goes on",
}

_CODES: Final[tuple[tuple[tuple[type[Exception], ...], int], ...]] = (
    ((AccessDenied, NotSignedIn), DENIED),
    ((NotFound,), NOT_FOUND),
    ((Unreachable, ServiceUnavailable, httpx.TransportError), UNREACHABLE),
    ((RequestRefused, ValueError, OSError, httpx.InvalidURL), USAGE),
    ((BasisConvError,), FAILED),
)


def code_of(error: Exception) -> int:
    """The exit status for what went wrong."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)
