"""What payloads of the corpus touch when they run, and the answers that the service gives to them."""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.hostile.corpus import READY, Hostile, Traps

PATIENCE_SECONDS = 120.0  # of a test; what is promised stands in the table of `make test-hostile`


@dataclass
class Canary:
    """A file and a server that nobody but a payload touches."""

    traps: Traps
    server: socket.socket

    def is_alive(self) -> bool:
        """Whether nothing ran."""
        try:
            self.server.accept()[0].close()
        except BlockingIOError:
            return not self.traps.file.exists()
        return False

    def revive(self) -> None:
        self.traps.file.unlink(missing_ok=True)


@contextmanager
def canary() -> Iterator[Canary]:
    """In a folder that every uid can write to."""
    with tempfile.TemporaryDirectory(prefix="basisconv-canary-") as folder:
        Path(folder).chmod(0o777)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0)
            yield Canary(Traps(Path(folder) / "it-ran", server.getsockname()[1]), server)


class Watch:
    """Watches a worker's children: `bytes` is the most memory of any since `begin`, `cpu_seconds` the most
    processor time; 0 without one."""

    def __init__(self, worker_pid: int) -> None:
        self._worker = psutil.Process(worker_pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.begin()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self) -> None:
        self.bytes, self.cpu_seconds = 0, 0.0

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            with suppress(psutil.Error):
                for child in self._worker.children():
                    spent = child.cpu_times()
                    self.cpu_seconds = max(self.cpu_seconds, spent.user + spent.system)
                    self.bytes = max(self.bytes, _most(child))


def _most(process: psutil.Process) -> int:
    """Its high-water mark where the kernel keeps one, else what it holds now."""
    with suppress(OSError):
        text = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", text):
            return int(found[1]) * 1024
    return int(process.memory_info().rss)


@dataclass(frozen=True)
class Answer:
    """What became of one case: the request's status, and the code and sentence of its refusal."""

    case: Hostile
    size: int
    status: int  # of the request
    code: str
    detail: str
    hint: str
    seconds: float
    peak_bytes: int = 0  # of the child that read it; 0: none did
    cpu_seconds: float = 0.0  # of the same
    ran: bool = False

    @property
    def is_as_wanted(self) -> bool:
        return self.code in self.case.codes


def send(client: httpx.Client, case: Hostile, traps: Traps) -> Answer:
    """Upload one case, and wait for what becomes of it."""
    data = case.make(traps)
    began = time.monotonic()
    response = _post(client, case, data)
    document: dict[str, Any] = response.json()
    if response.status_code == 201:
        document = _ended(client, f"/v1/{case.to}/{document['id']}", began)
    code = READY if document.get("status") == READY else str(document.get("code"))
    detail, hint = str(document.get("detail") or ""), str(document.get("hint") or "")
    return Answer(case, len(data), response.status_code, code, detail, hint, time.monotonic() - began)


def _post(client: httpx.Client, case: Hostile, data: bytes) -> httpx.Response:
    address = f"/v1/{case.to}"
    if case.content_type is not None:
        return client.post(address, content=data, headers={"Content-Type": case.content_type})
    return client.post(address, files={"file": (case.filename, data)}, data=case.fields)


def _ended(client: httpx.Client, address: str, began: float) -> dict[str, Any]:
    """The resource once it is ready, or the error of a rejected one."""
    while True:
        found: dict[str, Any] = client.get(address).raise_for_status().json()
        if found["status"] != "inspecting":
            return found if found["status"] == READY else found["error"]
        if time.monotonic() - began > PATIENCE_SECONDS:
            return {"code": "still_inspecting", "detail": f"{address} after {PATIENCE_SECONDS:.0f} s"}
        time.sleep(0.1)
