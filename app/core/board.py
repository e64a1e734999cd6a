"""What workers count, laid down in the broker under their names, for the web process to show.

So workers open no port (they handle strangers' files), need no address that a scraper can reach, and are all
seen at the one place that asks for a key. Losing it costs figures, never work.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import redis
import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from app.core.events import redis_url

KEPT_SECONDS: Final = 900  # a worker that fell silent is shown, as silent, for so long
_PREFIX: Final = "basisconv:worker:"
_SOCKET_SECONDS: Final = 1  # neither a worker nor a scrape waits for a hung broker

log = structlog.get_logger()


@dataclass(frozen=True)
class Sheet:
    """A worker's figures in Prometheus' text format, and how long ago it wrote them."""

    worker: str
    text: str
    age_seconds: float


class Board:
    def __init__(self, broker_url: str) -> None:
        self._client = redis.Redis.from_url(
            redis_url(broker_url),
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
        )

    def write(self, worker: str, text: bytes) -> None:
        """Replace this worker's sheet. A broker that is away is no error: the next one comes in seconds."""
        try:
            self._client.set(_PREFIX + worker, text, ex=KEPT_SECONDS)
        except (RedisError, OSError) as error:
            log.debug("board.not_written", error=str(error))

    def read(self) -> list[Sheet]:
        """All sheets. Their age is told by the broker's own clock: those of the machines may differ."""
        names = sorted(self._client.scan_iter(_PREFIX + "*", count=1000))
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.get(name)
                pipeline.pttl(name)
            answers = pipeline.execute()
        found = zip(names, answers[::2], answers[1::2], strict=True)
        return [
            Sheet(name.decode().removeprefix(_PREFIX), text.decode(), KEPT_SECONDS - left / 1000)
            for name, text, left in found
            if text is not None  # it may run out in between
        ]

    def close(self) -> None:
        self._client.close()


def families(board: Board) -> Iterable[Metric]:
    """What the workers counted, each sample with its worker's name; nothing while the broker is away."""
    try:
        sheets = board.read()
    except (RedisError, OSError) as error:
        log.warning("board.not_read", error=str(error))
        return
    seen = GaugeMetricFamily(
        "basisconv_worker_seen_seconds_ago", "Since the worker last told its figures.", labels=["worker"]
    )
    for sheet in sheets:
        seen.add_metric([sheet.worker], sheet.age_seconds)
        for family in text_string_to_metric_families(sheet.text):
            named = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                named.add_sample(sample.name, {**sample.labels, "worker": sheet.worker}, sample.value)
            yield named
    yield seen
