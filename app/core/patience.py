"""How long a database that says nothing is waited for.

A server that ends says so, and its kernel does where it cannot. A machine that vanished, a network that
swallows everything and a proxy that hangs say nothing: the kernel would go on sending for a quarter of an
hour, and who only waits for an answer would wait for ever. So the kernel is told to give up early, on our
side and on the server's, which else keeps the locks of a client that is gone; and since a proxy that hangs
still acknowledges, no answer is waited for longer than the connection's patience.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from sqlalchemy import Engine, event
from sqlalchemy.engine import URL, make_url

CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 30.0  # unless a setting says otherwise
LOCK_SECONDS: Final = 600.0  # for locks that somebody holds while a large object is copied
UPKEEP_SECONDS: Final = 3600.0  # for what goes over whole tables, and nobody waits for
_UNHEARD_SECONDS: Final = 20
_IDLE_SECONDS: Final = 15  # between connections that rest and the first question whether the other is there
_ASKED_SECONDS: Final = 5
_ASKED_TIMES: Final = 3
# For libpq, which leaves out what the system or a Unix socket does not know. The URL may set them otherwise.
_PARAMETERS: Final = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": _IDLE_SECONDS,
    "keepalives_interval": _ASKED_SECONDS,
    "keepalives_count": _ASKED_TIMES,
    "tcp_user_timeout": 1000 * _UNHEARD_SECONDS,
}
# For our session in the server, as far as it knows them. The last one, since PostgreSQL 14, ends what still
# works, or waits for a lock, for a client that has closed the connection. Not said at the connection's start,
# where poolers refuse what they do not know.
_SESSION: Final = {
    "tcp_keepalives_idle": f"{_IDLE_SECONDS}s",
    "tcp_keepalives_interval": f"{_ASKED_SECONDS}s",
    "tcp_keepalives_count": str(_ASKED_TIMES),
    "tcp_user_timeout": f"{_UNHEARD_SECONDS}s",
    "client_connection_check_interval": "10s",
}
_SET: Final = (
    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted(name, value) "
    "WHERE current_setting(name, true) IS NOT NULL"
)

_patience: ContextVar[float | None] = ContextVar("patience", default=None)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Inside, each answer is waited for so long, whatever the engine's own patience is."""
    before = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(before)


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is given up when an answer takes too long."""

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if timeout is not None:  # psycopg's own, for what it does with the connection
            return super().wait(gen, interval, timeout)
        chosen = _patience.get()
        seconds = self.answer_seconds if chosen is None else chosen
        try:
            return super().wait(gen, interval, seconds)
        except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - to be made a public one, as it says
            self.pgconn.finish()  # what would come now answers a question that nobody asks any more
            raise psycopg.OperationalError(f"no answer within {seconds:g} s") from error


def connect_arguments(url: str | URL, connect_seconds: int = CONNECT_SECONDS) -> dict[str, Any]:
    """What the driver is told beside the URL, which may say otherwise."""
    chosen = make_url(url).query
    parameters = _PARAMETERS | {"connect_timeout": connect_seconds}
    return {name: value for name, value in parameters.items() if name not in chosen}


def give_up_after(engine: Engine, answer_seconds: float) -> None:
    """Let the engine make connections with so much patience."""

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> PatientConnection:
        made = PatientConnection.connect(*arguments, **parameters)
        made.answer_seconds = answer_seconds
        made.autocommit = True
        with patience(CONNECT_SECONDS):
            made.execute(_SET, [list(_SESSION), list(_SESSION.values())])
        made.autocommit = False
        return made
