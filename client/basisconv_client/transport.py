"""Requests that survive a bad line: tried again with growing pauses, and never doing a thing twice."""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import httpx

from basisconv_client.errors import ServerTooOld, ServiceError, Unreachable, error_of
from basisconv_client.resources import Json

TIMEOUT: Final = httpx.Timeout(60, connect=10)
_PAGE: Final = 100
_AGAIN: Final = frozenset({429, 502, 503, 504})  # of 500 nobody knows that it will pass
_NEVER_AGAIN: Final = frozenset({"quota_exceeded"})  # also a 429, and no waiting helps

Query = Mapping[str, str | int | None]
Failure = httpx.TransportError | ServiceError


@dataclass(frozen=True)
class Patience:
    """How long to go on trying."""

    tries: int = 6
    tries_following: int = 10  # a job runs for hours: a minute and a half is no reason to lose sight of it
    first_seconds: float = 0.5
    most_seconds: float = 20.0
    most_asked_seconds: float = 120.0  # a longer Retry-After is told rather than waited for
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = field(default=lambda: random.uniform(0.75, 1.25))  # noqa: S311 - no secret

    def pause(self, failures: int) -> float:
        """Before the next try, after so many failures in a row; many clients do not come back at once."""
        return min(self.first_seconds * 2.0 ** (failures - 1), self.most_seconds) * self.jitter()


class Transport:
    """One server and one key."""

    def __init__(
        self,
        url: str,
        api_key: str,
        patience: Patience,
        on_wait: Callable[[str, float], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.patience = patience
        self._on_wait = on_wait or _nobody_hears
        self.http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": f"basisconv-client/{_version()}"},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=not is_loopback(self.url),  # no proxy stands between a machine and itself
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        files: Callable[[], dict[str, Any]] | None = None,
        content: bytes | None = None,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> httpx.Response:
        """The answer, if it is a good one. Only for what may safely be asked twice."""
        failures = 0
        while True:
            form = {} if files is None else files()
            asked = self.http.build_request(
                method,
                path,
                params={name: value for name, value in (query or {}).items() if value is not None},
                headers=dict(headers or {}),
                timeout=timeout,
                json=None if body is None else dict(body),
                data=form.get("data"),
                files=form.get("files"),
                content=content,
            )
            try:
                response = self.http.send(asked)
            except httpx.TransportError as error:
                failures += 1
                self.rest_or_give_up(error, failures)
                continue
            if not response.is_error:
                return response
            failures += 1
            if method == "DELETE" and response.status_code == 404 and failures > 1:
                return response  # an earlier try did it, and its answer was lost
            self.rest_or_give_up(problem_of(response), failures)

    def rest_or_give_up(self, error: Failure, failures: int, tries: int | None = None) -> None:
        """Wait before the next try; raise what went wrong where another try is of no use."""
        asked = None
        if isinstance(error, ServiceError):
            asked = error.retry_after
            hopeless = error.status not in _AGAIN or error.code in _NEVER_AGAIN
            reason = f"it answered {error.status}, {error.code}"
        else:
            hopeless = isinstance(error, httpx.UnsupportedProtocol)
            reason = _reason(error)
        too_long = asked is not None and asked > self.patience.most_asked_seconds
        if hopeless or too_long or failures >= (tries or self.patience.tries):
            if isinstance(error, httpx.TransportError):
                raise Unreachable(self.url, reason) from error
            raise error
        self.rest(reason, self.patience.pause(failures) if asked is None else asked)

    def rest(self, reason: str, seconds: float) -> None:
        self._on_wait(reason, seconds)
        self.patience.sleep(seconds)

    def get(self, path: str, query: Query | None = None) -> Json:
        return json_of(self.request("GET", path, query=query))

    def rows(self, path: str, query: Query, *, most_pages: int | None = None) -> Iterator[Json]:
        """Every item of a list, page after page, as they are asked for."""
        asked = {"limit": _PAGE, **query}
        pages = 0
        while most_pages is None or pages < most_pages:
            page = self.get(path, asked)
            yield from page["data"]
            if not page.get("has_more"):
                return
            asked["after"] = page["last_id"]
            pages += 1

    def create(self, path: str, body: Mapping[str, Any], idempotency_key: str | None = None) -> Json:
        """A POST that makes one thing, however often it has to be sent."""
        headers = {"Idempotency-Key": idempotency_key or new_key()}
        return json_of(self.request("POST", path, body=body, headers=headers))

    @contextmanager
    def needing(self, what: str, path: str) -> Iterator[None]:
        """Tell a server that does not know the address from one that misses what was named in the request."""
        try:
            yield
        except ServiceError as error:
            if error.status in (404, 405) and not self._knows(path):
                raise ServerTooOld(self.url, what) from error
            raise

    def _knows(self, path: str) -> bool:
        try:
            self.get(path, {"limit": 1})
        except ServiceError as error:
            return error.status not in (404, 405)
        return True

    def close(self) -> None:
        self.http.close()


def _nobody_hears(reason: str, seconds: float) -> None:
    pass


def new_key() -> str:
    """An Idempotency-Key that nobody used before."""
    return uuid.uuid4().hex


def is_loopback(url: str) -> bool:
    return httpx.URL(url).host in {"127.0.0.1", "::1", "localhost"}


def json_of(response: httpx.Response) -> Json:
    body: Any = None
    with suppress(ValueError):
        body = response.json()
    if not isinstance(body, dict):
        raise ServiceError(
            {
                "detail": f"{response.url} answered {response.status_code} without a JSON object.",
                "hint": "Is it a BasisConv server?",
            },
            response.status_code,
        )
    return body


def problem_of(response: httpx.Response) -> ServiceError:
    problem: Json = {}
    with suppress(ValueError):
        body = json.loads(response.read())
        problem = body if isinstance(body, dict) else {}
    said = f"{response.url} answered {response.status_code}."
    error = error_of({"detail": said, **problem}, response.status_code)
    error.retry_after = _retry_after(response)
    return error


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that the server asks to wait, where it says so in seconds."""
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isascii() and given.isdigit() else None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _version() -> str:
    try:
        return version("basisconv-client")
    except PackageNotFoundError:
        return "0"
