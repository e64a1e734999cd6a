"""The bus: a ring for everybody who watches a job. It carries nothing; rows in ``job_events`` are the truth.

Publishing is sync (requests and workers), listening async: one connection per web process, however many
streams are open. A ring that is lost costs a watcher the fallback poll, never an event.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis
import redis.asyncio
import structlog
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

_PREFIX = "basisconv:job:"
_SOCKET_SECONDS = 1  # a hung broker must not hold a worker's stage or a user's request
_RECONNECT_SECONDS = 1
_SILENT_SECONDS = 10.0  # without a ring, before the listener asks whether the broker is there

log = structlog.get_logger()


def redis_url(broker_url: str) -> str:
    """The URL as redis-py wants it; for sockets Celery writes ``redis+socket://…?virtual_host=1``."""
    if broker_url.startswith("redis+socket://"):
        return "unix://" + broker_url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    return broker_url


class BusPublisher:
    """Rings watchers; a broker that is down is no error."""

    def __init__(self, broker_url: str) -> None:
        self._client = redis.Redis.from_url(
            redis_url(broker_url),
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
        )

    def wake(self, job_id: str) -> None:
        try:
            self._client.publish(_PREFIX + job_id, b"")
        except (RedisError, OSError) as error:
            log.warning("bus.failed", job_id=job_id, error=str(error))

    def ping(self) -> None:
        """Raise if the broker does not answer."""
        self._client.ping()

    def close(self) -> None:
        self._client.close()


class BusListener:
    """Hands rings to the streams that wait in this process."""

    def __init__(self, broker_url: str) -> None:
        self._url = redis_url(broker_url)
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at every ring for this job; the watcher clears it."""
        bell = asyncio.Event()
        watchers = self._waiting.setdefault(job_id, set())
        watchers.add(bell)
        try:
            yield bell
        finally:
            watchers.discard(bell)
            if not watchers and self._waiting.get(job_id) is watchers:
                del self._waiting[job_id]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen for as long as the block lasts."""
        task = asyncio.create_task(self._listen_forever())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                log.warning("bus.lost", error=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        client = redis.asyncio.Redis.from_url(self._url, socket_connect_timeout=_SOCKET_SECONDS)
        async with client, client.pubsub() as pubsub:
            await pubsub.psubscribe(_PREFIX + "*")
            asked = False
            while True:
                message = await pubsub.get_message(timeout=_SILENT_SECONDS)
                if message is None:
                    if asked:
                        raise RedisTimeout(f"no answer within {_SILENT_SECONDS:g} s")
                    await pubsub.ping()  # nobody rang; or the other is gone and nobody can tell
                asked = message is None
                if message is not None and message["type"] == "pmessage":
                    self._wake(message["channel"].decode().removeprefix(_PREFIX))

    def _wake(self, job_id: str) -> None:
        for bell in self._waiting.get(job_id, ()):
            bell.set()
