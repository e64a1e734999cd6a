"""Servers on this machine that misbehave on purpose, where the real one cannot be made to."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx

Answer = Callable[[BaseHTTPRequestHandler], None]
_BY_HOP = {"connection", "host", "transfer-encoding", "content-length"}


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def serving(answers: list[Answer]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """These answers in turn, the last one for ever; the URL and the headers that were sent to it."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            answers[min(len(asked), len(answers)) - 1](self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with listening(Handler) as url:
        yield url, asked


@contextmanager
def older(url: str, *unknown: str) -> Iterator[str]:
    """The real service as it was before these addresses, and what lies under them, existed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.partition("?")[0].startswith(unknown):
                return status(404, json.dumps({"code": "not_found", "detail": "There is nothing."}).encode())(
                    self
                )
            sent = {name: value for name, value in self.headers.items() if name.lower() not in _BY_HOP}
            found = httpx.request(
                self.command, url + self.path, content=body, headers=sent, timeout=60, trust_env=False
            )
            self.send_response(found.status_code)
            for name, value in found.headers.items():
                if name.lower() not in _BY_HOP | {"content-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.content)))
            self.end_headers()
            self.wfile.write(found.content)
            return None

        do_POST = do_HEAD = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with listening(Handler) as address:
        yield address


def frame(seq: int, kind: str) -> bytes:
    body = {"id": f"event_{seq}", "seq": seq, "type": kind, "stage": None, "message": "", "data": {}}
    return f"event: {kind}\nid: {seq}\ndata: {json.dumps(body)}\n\n".encode()


def stream(*frames: bytes, cut: bool = False) -> Answer:
    return status(200, b": hello\n\n" + b"".join(frames), missing=100 * cut)


def status(code: int, body: bytes = b"", *, missing: int = 0, **headers: str) -> Answer:
    """An answer; `missing` bytes of it are promised and never sent."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body) + missing))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer
