"""SQLAlchemy 2, sync, psycopg 3. Application code never commits; the edge of a request or of a task does."""

import select
import time
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import psycopg
from sqlalchemy import BigInteger, DateTime, Engine, MetaData, create_engine, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from app.core.patience import ANSWER_SECONDS, connect_arguments, give_up_after, patience

# What an operation meets while the database is away: it may be tried again. Any other error would come again.
AWAY: Final = (OperationalError, InterfaceError, PoolTimeout)
_TRUSTED_SECONDS: Final = 5.0  # at rest, without being asked whether the server is there
_PING_SECONDS: Final = 5.0  # what the question whether it is there may take
_RESTS_SINCE: Final = "rests_since"
NAMING = {  # so that Alembic can name what it drops
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Every table of the service."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        int: BigInteger(),  # file sizes pass 2 GiB
        dict[str, Any]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: JSONB(none_as_null=True),
        list[int]: JSONB(none_as_null=True),
    }


def make_engine(database_url: str, *, pool_size: int = 10, answer_seconds: float = ANSWER_SECONDS) -> Engine:
    """An engine whose connections are checked before use, so a restarted PostgreSQL costs no request.

    It waits for no answer longer than it is told to.
    """
    engine = create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args=connect_arguments(database_url) | {"options": "-c timezone=utc"},
    )
    give_up_after(engine, answer_seconds)
    check_before_use(engine)
    return engine


def check_before_use(engine: Engine) -> None:
    """What `pool_pre_ping` does, without a trip to the server for a connection that is plainly alive.

    A server that goes, however it goes, ends its connections, and that makes their sockets readable; nothing
    else does while they rest. Only a network that swallows everything tells nothing: so who rested longer is
    asked.
    """

    @event.listens_for(engine, "checkin")
    def _rests(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_RESTS_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _is_alive(connection: Any, record: ConnectionPoolEntry, _fairy: Any) -> None:
        since = record.info.pop(_RESTS_SINCE, None)  # none: it was opened just now
        if since is None or (time.monotonic() - since < _TRUSTED_SECONDS and _is_silent(connection)):
            return
        try:
            with patience(_PING_SECONDS):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error  # those that rested as long are gone as well


def _is_silent(connection: Any) -> bool:
    """Nothing came while it rested: no farewell of the server either."""
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
    except psycopg.Error:  # it is closed already
        return False
    return not poll.poll(0)


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after commit."""
    return sessionmaker(engine, expire_on_commit=False)


def as_utc(moment: datetime | None) -> datetime | None:
    """A moment from the database in UTC."""
    return None if moment is None else moment.astimezone(UTC)
