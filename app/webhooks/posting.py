"""One request to a webhook's address: no redirects, no proxies, no address inside, and an end to every wait.

Of the answer only the status is read: what a server says must not become readable through this service.
"""

import re
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpcore

from app.webhooks.addresses import NotAllowed, look_up


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt."""

    status: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def post(url: str, headers: dict[str, str], body: bytes, *, seconds: float, private: bool) -> Outcome:
    """Send the body, within so many seconds in all. Whatever goes wrong is told, not raised."""
    backend = _Guarded(httpcore.SyncBackend(), time.monotonic() + seconds, private=private)
    try:
        with (
            httpcore.ConnectionPool(_trusted(), max_connections=1, network_backend=backend) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
        ):
            return _judged(response.status)
    except httpcore.TimeoutException:
        return Outcome(error=f"No answer within {seconds:g} s.")
    except NotAllowed as error:
        return Outcome(error=f"{error}, which is not allowed.")
    except ssl.SSLError as error:
        return Outcome(error=f"The connection could not be made safe: {error.reason or 'TLS failed'}.")
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
        words = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        return Outcome(error=f"Could not be reached: {words[:200]}.")


def _judged(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status)
    if 300 <= status < 400:
        return Outcome(status, "The answer is a redirect, which is not followed.")
    return Outcome(status, f"The answer has the status {status}.")


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that were judged, until a moment."""

    def __init__(self, inner: httpcore.NetworkBackend, until: float, *, private: bool) -> None:
        self._inner, self._until, self._private = inner, until, private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - ours ends for the whole request
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failed: Exception = httpcore.ConnectError("the name has no address")
        for address in look_up(host, port, private=self._private):
            try:
                stream = self._inner.connect_tcp(
                    address, port, left(self._until), local_address, socket_options
                )
                return _Limited(stream, self._until)
            except httpcore.ConnectError as error:
                failed = error
        raise failed


class _Limited(httpcore.NetworkStream):
    """A stream whose waits all end at one moment: a server that sends a byte a second gains nothing."""

    def __init__(self, inner: httpcore.NetworkStream, until: float) -> None:
        self._inner, self._until = inner, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._inner.read(max_bytes, left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._inner.write(buffer, left(self._until))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, left(self._until))
        return _Limited(inner, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def left(until: float) -> float:
    """Seconds that are left; raises when none are."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout
    return seconds
