"""Files of any size, made as they are sent, by plain HTTP: the client costs little beside the server."""

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from tests.api.seeds import npz_bytes

CHUNK_BYTES = 1 << 20
CONTENT_TYPE = "application/offset+octet-stream"
_BOUNDARY = "basisconv-boundary"


@dataclass(frozen=True)
class Sparse:
    """What passes for a data set at first sight, then zeros: no file of this size need lie anywhere."""

    size: int

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        head = npz_bytes()
        zeros = bytes(CHUNK_BYTES)
        while start < self.size:
            left = self.size - start
            chunk = head[start : start + left] if start < len(head) else zeros[: min(left, CHUNK_BYTES)]
            start += len(chunk)
            yield chunk


@dataclass
class Sender:
    """Sends with one key to one service; every call is a connection of its own."""

    url: str
    key: str

    def form(self, path: str, filename: str, size: int, chunks: Iterable[bytes]) -> dict[str, Any]:
        """The file in one request; the resource that it becomes."""
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
        ).encode()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        status, _, body = self.ask("POST", path, headers, _joined(head, chunks, tail))
        assert status == http.client.CREATED, body
        return dict(json.loads(body))

    def tus(self, path: str, filename: str, size: int, chunks: Iterable[bytes]) -> dict[str, Any]:
        """The file by tus, in one PATCH, and then the resource that it becomes."""
        url = self.begin(size)
        status, _, body = self.patch(url, 0, size, chunks)
        assert status == http.client.NO_CONTENT, body
        given = json.dumps({"upload": url.rsplit("/", 1)[1], "name": filename}).encode()
        status, _, body = self.ask("POST", path, {"Content-Type": "application/json"}, given)
        assert status == http.client.CREATED, body
        return dict(json.loads(body))

    def begin(self, size: int) -> str:
        status, headers, body = self.ask("POST", "/v1/uploads", {"Upload-Length": str(size)}, b"")
        assert status == http.client.CREATED, body
        return headers["Location"]

    def patch(
        self, url: str, offset: int, size: int, chunks: Iterable[bytes]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Upload-Offset": str(offset), "Content-Type": CONTENT_TYPE, "Content-Length": str(size)}
        return self.ask("PATCH", url, headers, chunks)

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: Any = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
        try:
            given = {"Authorization": f"Bearer {self.key}", "Tus-Resumable": "1.0.0"} | headers
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


def _joined(head: bytes, chunks: Iterable[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from chunks
    yield tail


@dataclass
class Latencies:
    """How long other requests take meanwhile: `with Latencies(sender) as seen: …`, then `seen.seconds`."""

    sender: Sender
    path: str = "/v1/models?limit=5"
    seconds: list[float] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)

    def __enter__(self) -> "Latencies":
        self._thread = Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            begun = time.perf_counter()
            status, _, body = self.sender.ask("GET", self.path, {})
            self.seconds.append(time.perf_counter() - begun)
            assert status == http.client.OK, body
            self._stop.wait(0.1)

    def summary(self) -> dict[str, float]:
        """Milliseconds."""
        ordered = sorted(self.seconds) or [0.0]
        return {
            "requests": len(self.seconds),
            "median_ms": round(1000 * ordered[len(ordered) // 2], 1),
            "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1),
            "worst_ms": round(1000 * ordered[-1], 1),
        }
