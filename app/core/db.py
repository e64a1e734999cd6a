"""SQLAlchemy 2, sync, psycopg 3. Application code never commits; the edge of a request or of a task does."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from sqlalchemy import BigInteger, DateTime, Engine, MetaData, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

# What an operation meets while the database is away: it may be tried again. Any other error would come again.
AWAY: Final = (OperationalError, InterfaceError, PoolTimeout)
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


def make_engine(database_url: str, *, pool_size: int = 10) -> Engine:
    """An engine whose connections are checked before use, so a restarted PostgreSQL costs no request."""
    return create_engine(
        database_url,
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args={"connect_timeout": 5, "options": "-c timezone=utc"},
    )


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after commit."""
    return sessionmaker(engine, expire_on_commit=False)


def as_utc(moment: datetime | None) -> datetime | None:
    """A moment from the database in UTC."""
    return None if moment is None else moment.astimezone(UTC)
