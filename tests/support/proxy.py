"""A TCP proxy that can turn into a black hole: what was said is swallowed, and no connection ends."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy.engine import make_url

Address = str | tuple[str, int]  # a Unix socket's path, or host and port


@dataclass(eq=False)
class _Connection:
    client: socket.socket
    server: socket.socket
    is_lost: bool = False


@dataclass(eq=False)
class Proxy:
    """On a free port of 127.0.0.1. Connections that were swallowed stay so when it forwards again."""

    target: Address
    heard: Callable[[bytes], None] = lambda _: None  # is told what clients say, before it goes on
    _connections: list[_Connection] = field(default_factory=list)
    _swallows: bool = False

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # wakes whoever waits in it
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            for end in (connection.client, connection.server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def swallow(self) -> None:
        self._swallows = True
        for connection in self._connections:
            connection.is_lost = True

    def forward(self) -> None:
        self._swallows = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = _connected(self.target)
            except OSError:
                return
            connection = _Connection(client, server, self._swallows)
            self._connections.append(connection)
            for source, sink in ((client, server), (server, client)):
                pump = threading.Thread(target=self._pump, args=(connection, source, sink), daemon=True)
                pump.start()

    def _pump(self, connection: _Connection, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if source is connection.client:
                    self.heard(data)
                if not connection.is_lost:
                    sink.sendall(data)
            if not connection.is_lost:
                sink.shutdown(socket.SHUT_WR)


def _connected(target: Address) -> socket.socket:
    if not isinstance(target, str):
        return socket.create_connection(target)
    made = socket.socket(socket.AF_UNIX)
    made.connect(target)
    return made


def address_of(url: str) -> Address:
    """Where the server of a database's or a broker's URL listens."""
    parts = urlsplit(url)
    folder = parse_qs(parts.query).get("host")
    if folder:
        return f"{unquote(folder[0])}/.s.PGSQL.5432"
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def through(url: str, proxy: Proxy, **query: str) -> str:
    """The same URL by way of the proxy."""
    chosen = make_url(url).set(host="127.0.0.1", port=proxy.port, query=query)
    return chosen.render_as_string(hide_password=False)
