"""Processor time of the web processes for one request of each kind, which other work on the machine hardly
stretches. Asked one after another over one connection; what the process does besides is taken off."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

import psutil

from benchmarks.service.load import Connections, Kind

WARM_UP: Final = 50
IDLE_SECONDS: Final = 3.0


def measure(
    url: str, key: str, processes: Sequence[psutil.Process], kinds: Sequence[Kind], number: int
) -> dict[str, float]:
    """Milliseconds a request, by the name of its kind."""
    return asyncio.run(_measure(url, key, processes, kinds, number))


async def _measure(
    url: str, key: str, processes: Sequence[psutil.Process], kinds: Sequence[Kind], number: int
) -> dict[str, float]:
    connections, idle = Connections(url, key), await _idle_share(processes)
    return {kind.name: await _of_kind(connections, processes, kind, number, idle) for kind in kinds}


async def _idle_share(processes: Sequence[psutil.Process]) -> float:
    """Of a core, for the rounds that come by themselves."""
    used, began = seconds_of(processes), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    return (seconds_of(processes) - used) / (time.monotonic() - began)


async def _of_kind(
    connections: Connections, processes: Sequence[psutil.Process], kind: Kind, number: int, idle: float
) -> float:
    dice = random.Random(0)
    for _ in range(WARM_UP):
        await _ask(connections, kind, dice)
    used, began = seconds_of(processes), time.monotonic()
    for _ in range(number):
        await _ask(connections, kind, dice)
    seconds = seconds_of(processes) - used - idle * (time.monotonic() - began)
    return round(1000 * seconds / number, 2)


async def _ask(connections: Connections, kind: Kind, dice: random.Random) -> None:
    path = kind.path.replace("{id}", dice.choice(kind.ids)) if kind.ids else kind.path
    status = await connections.ask(kind.method, path, kind.body)
    if status >= 400:
        raise OSError(f"{kind.name} was answered with {status}")


def seconds_of(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
