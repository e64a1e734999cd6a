"""The outermost layer: a request id, security headers, a limit for JSON bodies, metrics, one log line, and
`internal` without a traceback for whatever nobody expected. Pure ASGI, so streams pass through untouched."""

import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import Internal, Overloaded, Problem
from app.core.ids import new_id
from app.core.problems import BodyTooLarge, problem_response
from app.core.unit import Services

# For answers that are no pages: whatever a browser makes of them, nothing in them runs or loads anything.
CONTENT_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_TLS_ONLY: Final = "max-age=31536000"  # a year: the public URL is https, so browsers need never try http
_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds by machines

_RETRY_SECONDS: Final = "1"  # so many requests are answered within one

log = structlog.get_logger()


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: Services, is_streamed: Callable[[str], bool]) -> None:
        self.app = app
        self.services = services
        self.is_streamed = is_streamed  # paths whose bodies are uploads, with limits of their own
        self._at_work = 0  # changed in the event loop alone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_upload = self.is_streamed(scope["path"])
        limit = None if is_upload else self.services.settings.max_json_bytes
        counts = not (_takes_no_turn(scope) or (is_upload and scope["method"] != "GET"))
        exchange = _Exchange(self.services, limit, scope, receive, send)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        self._at_work += counts
        try:
            if counts and 0 < self.services.settings.max_requests_at_work < self._at_work:
                await exchange.refuse(_overloaded(self.services.settings.max_requests_at_work))
            else:
                await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            log.info("client.gone", method=scope["method"], path=scope["path"])
        except Exception:
            log.exception("request.crashed", method=scope["method"], path=scope["path"])
            if exchange.status:
                raise  # after the first byte only a broken connection can tell
            await exchange.crash()
        finally:
            self._at_work -= counts
            exchange.finish()


class _Exchange:
    """One request and its answer, as they pass through."""

    def __init__(
        self, services: Services, body_limit: int | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.request_id = new_id("request", services.clock.now())
        self.status = 0  # 0: the client went away before an answer
        self._services, self._scope, self._receive, self._send = services, scope, receive, send
        self._started = time.perf_counter()
        self._body_bytes = 0
        self._body_limit = body_limit
        self._is_stream = False
        services.metrics.requests_open.inc()
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            message = _last_bytes(self._receive) or message
        if self._body_limit is not None and message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            if self._body_bytes > self._body_limit:
                raise BodyTooLarge(self._body_limit)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            self._is_stream = headers.get("content-type", "").startswith("text/event-stream")
            headers["X-Request-ID"] = self.request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
            if (allowance := self._scope["state"].get("allowance")) is not None:
                headers.update(allowance.headers())
            if self._services.settings.is_https():
                headers.setdefault("Strict-Transport-Security", _TLS_ONLY)
            if self._scope["path"].startswith("/v1/"):
                headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def crash(self) -> None:
        """Answer for an exception that nobody handled."""
        problem = Internal(
            "An unexpected error occurred.", hint="The server's log tells more under the request id."
        )
        await self.refuse(problem)

    async def refuse(self, problem: Problem) -> None:
        """Answer without asking the application."""
        await problem_response(problem, self.request_id)(self._scope, self._receive, self.send)

    def finish(self) -> None:
        seconds = time.perf_counter() - self._started
        method, route = self._scope["method"], route_of(self._scope)
        metrics = self._services.metrics
        counted = method if method in _KNOWN_METHODS else "other"  # a stranger can send any word
        metrics.requests_open.dec()
        metrics.requests.labels(counted, route, str(self.status)).inc()
        if not self._is_stream:  # its length says nothing of how quick the service is
            metrics.request_seconds.labels(counted, route).observe(seconds)
        if self._scope["path"] not in _QUIET:
            log.info(
                "request",
                method=method,
                path=self._scope["path"],
                route=route,
                status=self.status,
                key_id=self._scope["state"].get("key_id"),
                seconds=round(seconds, 4),
            )


def _takes_no_turn(scope: Scope) -> bool:
    """What must be answered however busy the service is, or lasts for minutes and mostly waits."""
    path = scope["path"]
    return (
        path in _QUIET
        or path.startswith("/static/")
        or (path.endswith("/events") and b"text/event-stream" in dict(scope["headers"]).get(b"accept", b""))
    )


def _overloaded(most: int) -> Overloaded:
    return Overloaded(
        f"{most:,} requests are at work here, which is the most.",
        hint="Try again after a second, and more slowly. Nothing of this request was done.",
        headers={"Retry-After": _RETRY_SECONDS},
        limit=most,
    )


def _last_bytes(receive: Receive) -> Message | None:
    """What had arrived before the connection was cut and was not handed out; None where nothing is left.

    uvicorn tells of the cut first and forgets the rest: up to 64 KiB that a resumable upload need not send
    again. It lies in the request's cycle, whose method `receive` is; with another server there is none.
    """
    cycle = getattr(receive, "__self__", None)
    rest = getattr(cycle, "body", b"")
    if cycle is None or not isinstance(rest, bytearray) or not rest:
        return None
    cycle.body = bytearray()
    return {"type": "http.request", "body": bytes(rest), "more_body": getattr(cycle, "more_body", True)}


def route_of(scope: Scope) -> str:
    """The route's pattern, not the address: ids would make a new series each."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
