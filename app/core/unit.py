"""The edge's transaction: one per request, committed there, followed by what may only happen after commit."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Annotated

import structlog
from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request
from sqlalchemy import Engine, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.db import make_sessions
from app.core.events import BusListener, BusPublisher
from app.core.leases import Leased
from app.core.metrics import Metrics
from app.core.queue import Doorbell, TaskName
from app.core.rate import Meter
from app.core.settings import Settings
from app.keys.recent import RecentKeys
from app.storage.store import Store
from app.uploads.digests import RunningDigests

log = structlog.get_logger()


@dataclass(frozen=True)
class Services:
    """What the web process is made of; built once in ``create_app`` and carried in ``app.state``."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    store: Store
    doorbell: Doorbell
    publisher: BusPublisher
    listener: BusListener
    metrics: Metrics
    meter: Meter
    clock: Clock
    recent_keys: RecentKeys = field(default_factory=RecentKeys)
    digests: RunningDigests = field(default_factory=RunningDigests)

    @cached_property
    def single_statements(self) -> sessionmaker[Session]:
        """Sessions whose every statement is a transaction of its own: two trips to the database less."""
        return make_sessions(self.engine.execution_options(isolation_level="AUTOCOMMIT"))


@dataclass
class Unit:
    """One transaction, the moment it stands for, and what follows its commit."""

    session: Session
    now: datetime
    _rings: list[tuple[TaskName, Leased]] = field(default_factory=list)
    _after: list[Callable[[], None]] = field(default_factory=list)

    def ring(self, task: TaskName, row: Leased) -> None:
        """Ring for this row after commit, or never."""
        row.rung_at = self.now
        self._rings.append((task, row))

    def after_commit(self, action: Callable[[], None]) -> None:
        self._after.append(action)

    def follow_up(self, services: Services) -> None:
        """What the commit has made true. Nothing here can undo it, so nothing here may fail the request."""
        heard = True
        for task, row in self._rings:
            heard = heard and services.doorbell.ring(task, row.id)  # who is silent is not asked again
            if not heard:
                services.metrics.rings_failed.labels(task).inc()
                _forget_ring(services.sessions, row)
        for action in self._after:
            try:
                action()
            except Exception:
                log.exception("follow_up.failed")


@dataclass
class RequestUnit(Unit):
    """A request's, which knows what its end needs."""

    services: Services = field(kw_only=True)
    finished: bool = False

    def finish(self) -> None:
        with self.session as session:
            session.commit()
        self.finished = True
        self.follow_up(self.services)


def _forget_ring(sessions: sessionmaker[Session], row: Leased) -> None:
    """Mark the row as never rung, so that the reaper rings at once instead of after `ring_again_seconds`."""
    table = type(row)
    try:
        with sessions.begin() as session:
            session.execute(
                update(table).where(table.id == row.id, table.lease_owner.is_(None)).values(rung_at=None)
            )
    except SQLAlchemyError as error:
        log.warning("ring.not_forgotten", resource_id=row.id, error=str(error))


@contextmanager
def reading(services: Services) -> Iterator[Unit]:
    """A unit that changes nothing, as a GET's: each statement is a transaction of its own."""
    with services.single_statements() as session:
        yield Unit(session, services.clock.now())


@contextmanager
def transaction(services: Services) -> Iterator[Unit]:
    """A unit that commits when the block ends well and rolls back when it does not."""
    with services.sessions() as session:
        unit = Unit(session, services.clock.now())
        yield unit
        session.commit()
    unit.follow_up(services)


def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def services_of(request: Request) -> Services:
    """As a dependency. Not a plain function: those take a thread each, which costs more than what they do."""
    return get_services(request)


async def request_unit(request: Request) -> AsyncIterator[Unit]:
    """The request's unit. Opened without a connection: no request holds one while it waits for a thread.

    A GET changes nothing, and READ COMMITTED gives each statement its own view in any case: it needs no BEGIN
    and no COMMIT, each of which is a trip to the database.

    What :func:`transaction` does. A plain endpoint has finished it in its own thread already
    (app/core/routes.py); here is what is left of it after an error, and of async endpoints.
    """
    services = get_services(request)
    sessions = services.single_statements if request.method == "GET" else services.sessions
    unit = RequestUnit(sessions(), services.clock.now(), services=services)
    try:
        yield unit
    except BaseException:
        await _outside_the_limit(unit.session.close)
        raise
    if not unit.finished:
        await _outside_the_limit(unit.finish)


async def _outside_the_limit(action: Callable[[], None]) -> None:
    """In a thread that is there at once. The usual ones may all wait for a connection, and this request holds
    one: were it to wait for a thread, nobody would ever go on."""
    with CancelScope(shield=True):
        await to_thread.run_sync(action, limiter=CapacityLimiter(1))


ServicesOf = Annotated[Services, Depends(services_of)]
# scope="function": the commit comes before the answer; a client never reads what was rolled back.
UnitOfWork = Annotated[Unit, Depends(request_unit, scope="function")]
