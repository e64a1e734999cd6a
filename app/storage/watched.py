"""A transfer that somebody may break off: a storage that hangs is waited for by retries of minutes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

TICK_SECONDS: Final = 0.2

Each = Callable[[], None]


def go_on() -> None:
    """What is called where nobody has anything to say."""


def watched(begin: Callable[[], Awaitable[Any]], each: Each) -> Any:
    """What the transfer brings. `each` is called several times a second; if it raises, the transfer ends."""

    async def run() -> Any:
        task = asyncio.ensure_future(begin())
        try:
            while not (await asyncio.wait((task,), timeout=TICK_SECONDS))[0]:
                each()
            return await task
        finally:
            task.cancel()

    return asyncio.run(run())
