"""The load, in a process of its own: requests at a fixed rate, whether or not earlier ones were answered.

A request's latency counts from the moment at which it was to be sent, so a service that stalls is charged
for all who came meanwhile (a closed loop would politely wait). The client is as bare as can be: on two cores,
what it takes is taken from the service.

    python -m benchmarks.service.load plan.json out.json
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Kind:
    """One kind of request: how many of a hundred, and how to make one. `{id}` becomes one of `ids`."""

    name: str
    share: int
    method: str
    path: str
    ids: list[str] = field(default_factory=list)
    body: str = ""


@dataclass(frozen=True)
class Plan:
    url: str
    key: str
    rate: float
    seconds: float
    warm_up_seconds: float
    kinds: list[Kind]
    streams: list[str] = field(default_factory=list)  # addresses of event streams to hold open

    @classmethod
    def read(cls, path: Path) -> "Plan":
        plain = json.loads(path.read_text())
        return cls(**plain | {"kinds": [Kind(**kind) for kind in plain["kinds"]]})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


@dataclass
class Found:
    latencies: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    late_seconds: float = 0.0  # how far behind its own schedule the generator fell at most
    event_seconds: list[float] = field(default_factory=list)  # from an event's row to its arrival
    streams_open: int = 0
    streams_broken: int = 0


class Connections:
    """Kept open and used again, as browsers and clients do."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.headers = f"Host: {self.host}\r\nAuthorization: Bearer {key}\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: str) -> int:
        reader, writer = await self._open()
        extra = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        writer.write(f"{method} {path} HTTP/1.1\r\n{self.headers}{extra}\r\n{body}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = int(head[9:12]), _length(head)
        await reader.readexactly(length)
        self._idle.append((reader, writer))
        return status

    async def follow(self, path: str) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\n{self.headers}Accept: text/event-stream\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if int(head[9:12]) != 200:
            raise OSError(f"a stream was answered with {head[9:12].decode()}")
        return reader

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
        return await asyncio.open_connection(self.host, self.port, limit=1 << 20)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise OSError("an answer without Content-Length")


async def run(plan: Plan) -> Found:
    found, connections = Found(), Connections(plan.url, plan.key)
    followers = [asyncio.create_task(_follow(connections, path, found)) for path in plan.streams]
    await asyncio.sleep(1 if followers else 0)
    await _shoot(plan, plan.warm_up_seconds, connections, Found())
    await _shoot(plan, plan.seconds, connections, found)
    found.streams_open = sum(not task.done() for task in followers)
    for task in followers:
        task.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    return found


async def _shoot(plan: Plan, seconds: float, connections: Connections, found: Found) -> None:
    dice = random.Random(0)  # the same requests in every run
    chosen = dice.choices(plan.kinds, [kind.share for kind in plan.kinds], k=round(seconds * plan.rate))
    began = time.perf_counter()
    flying = set()
    for number, kind in enumerate(chosen):
        due = began + number / plan.rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        found.late_seconds = max(found.late_seconds, time.perf_counter() - due)
        path = kind.path.replace("{id}", dice.choice(kind.ids)) if kind.ids else kind.path
        task = asyncio.create_task(_fire(connections, kind, path, due, found))
        flying.add(task)
        task.add_done_callback(flying.discard)
    if flying:
        await asyncio.wait(flying, timeout=60)


async def _fire(connections: Connections, kind: Kind, path: str, due: float, found: Found) -> None:
    try:
        async with asyncio.timeout(30):
            status = await connections.ask(kind.method, path, kind.body)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        found.errors.append(f"{kind.name}: {type(error).__name__} {error}")
        return
    if status >= 400:
        found.errors.append(f"{kind.name}: {status}")
    found.latencies.setdefault(kind.name, []).append(time.perf_counter() - due)


async def _follow(connections: Connections, path: str, found: Found) -> None:
    """Read a stream; what was already there when it was opened is no measure of how quick it is."""
    opened = time.time()
    try:
        reader = await connections.follow(path)
        async for line in reader:
            if line.startswith(b"data: "):
                told: dict[str, Any] = json.loads(line[6:])
                at = datetime.fromisoformat(told["created_at"]).timestamp()
                if at > opened:
                    found.event_seconds.append(time.time() - at)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        found.errors.append(f"stream: {type(error).__name__} {error}")
    found.streams_broken += 1  # none ends by itself during a run


def main(plan_file: str, out_file: str) -> None:
    found = asyncio.run(run(Plan.read(Path(plan_file))))
    Path(out_file).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
