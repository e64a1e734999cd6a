"""How often a key may ask: so many requests a minute, counted for all web processes together in Valkey.

The generic cell rate algorithm keeps one number a key: the moment at which everything taken so far would be
paid for at an even pace. A key that was quiet may take a whole minute's requests at once. Without Valkey each
process counts for itself, and the service goes on.
"""

import math
import threading
import time
from dataclasses import dataclass
from typing import Final, Protocol

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.core.events import redis_url

WINDOW_SECONDS: Final = 60.0
_PREFIX: Final = "basisconv:rate:"
_SOCKET_SECONDS: Final = 0.5  # every request waits for the answer
_AWAY_SECONDS: Final = 5.0  # so long a server that failed is not asked again
_MOST_NAMES: Final = 10_000  # in one process's memory

# KEYS[1]: the key's number; ARGV: the limit, the window. By the server's clock, which all processes share.
_TAKE: Final = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local paid = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + window / limit - now
if paid > window + window / limit / 2 then return {0, tostring(paid)} end
redis.call('SET', KEYS[1], string.format('%.6f', now + paid), 'PX', math.ceil(paid * 1000))
return {1, tostring(paid)}
"""

log = structlog.get_logger()


@dataclass(frozen=True)
class Allowance:
    """Whether one more request is allowed, and what is left."""

    allowed: bool
    limit: int
    paid_seconds: float  # until all that was taken is paid for: the whole limit is there again

    @property
    def left(self) -> int:
        return max(math.floor((WINDOW_SECONDS - self.paid_seconds) * self.limit / WINDOW_SECONDS + 0.5), 0)

    @property
    def retry_seconds(self) -> int:
        """When the next request is allowed; at least a second, as headers know no less."""
        return max(math.ceil(self.paid_seconds - WINDOW_SECONDS), 1)

    def headers(self) -> dict[str, str]:
        """As the IETF's draft on RateLimit header fields has them."""
        return {
            "RateLimit-Policy": f'"requests";q={self.limit};w={WINDOW_SECONDS:.0f}',
            "RateLimit": f'"requests";r={self.left};t={math.ceil(self.paid_seconds)}',
        }


class Meter(Protocol):
    """Counts requests by name."""

    def take(self, name: str, limit: int) -> Allowance: ...


class MemoryMeter:
    """For one process."""

    def __init__(self) -> None:
        self._paid_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, name: str, limit: int) -> Allowance:
        now, interval = time.monotonic(), WINDOW_SECONDS / limit
        with self._lock:
            paid = max(self._paid_at.get(name, 0.0), now) + interval - now
            allowed = paid <= WINDOW_SECONDS + interval / 2
            if allowed:
                self._make_room(now)
                self._paid_at[name] = now + paid
        return Allowance(allowed, limit, paid)

    def _make_room(self, now: float) -> None:
        if len(self._paid_at) >= _MOST_NAMES:
            self._paid_at = {name: paid_at for name, paid_at in self._paid_at.items() if paid_at > now}


class ValkeyMeter:
    """For all processes that share a Valkey; raises RedisError when that is away."""

    def __init__(self, broker_url: str) -> None:
        self._client = redis.Redis.from_url(
            redis_url(broker_url),
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = self._client.register_script(_TAKE)

    def take(self, name: str, limit: int) -> Allowance:
        allowed, paid = self._script(keys=[_PREFIX + name], args=[limit, WINDOW_SECONDS])
        return Allowance(bool(allowed), limit, float(paid))

    def close(self) -> None:
        self._client.close()


class SteadyMeter:
    """Asks the shared meter and, while that is away, one of this process."""

    def __init__(self, shared: Meter, spare: Meter) -> None:
        self._shared, self._spare = shared, spare
        self._away_until = 0.0

    def take(self, name: str, limit: int) -> Allowance:
        if time.monotonic() >= self._away_until:
            try:
                return self._shared.take(name, limit)
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + _AWAY_SECONDS
                log.warning("rate.not_shared", error=str(error).partition("\n")[0])
        return self._spare.take(name, limit)
