"""Whether this process can serve, and if not, what is wrong and what helps, each in a sentence.

Anybody may ask, so no answer names a host, a path or a password, and however often it is asked, the servers
behind are looked at once a second at most. The looks run in threads of their own: a pool that is full of
requests waiting for a dead database must not keep the process from saying so.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import structlog
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Engine, NullPool, create_engine, text

from app.core import migrations
from app.core.patience import connect_arguments, give_up_after
from app.core.settings import Settings
from app.core.unit import Services

State = Literal["ok", "unavailable", "unknown"]
Checked = Literal["database", "migrations", "broker", "storage", "disk"]
PATIENCE_SECONDS: Final = 3.0  # for all looks together; a health check's own patience is often 5 s
KEPT_SECONDS: Final = 1.0

log = structlog.get_logger()


class NotReady(Exception):  # noqa: N818 - says what it means
    """What a look found wrong, for whoever runs the service."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.detail, self.hint = detail, hint


class Unknown(Exception):  # noqa: N818 - says what it means
    """A look that cannot tell; this alone makes nothing unavailable."""


@dataclass(frozen=True)
class Trouble:
    check: Checked
    detail: str
    hint: str
    reason: str = ""  # the error's own words: they may name hosts, so for the log alone


@dataclass(frozen=True)
class Room:
    """What is left of a disk, in bytes."""

    free: int
    total: int


@dataclass(frozen=True)
class Report:
    """What all looks found."""

    states: Mapping[str, State]
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        return not self.troubles


_HINTS: Final[Mapping[Checked, str]] = {
    "database": "Look whether PostgreSQL runs and can be reached; requests are refused until it answers.",
    "migrations": "Run `basisconv migrate`.",
    "broker": "Look whether Valkey runs and can be reached; until then accepted work waits.",
    "storage": "Look whether the folder or bucket of objects is there and can be written.",
    "disk": "Look whether the service's folders are there.",
}


class Readiness:
    """Looks at everything behind the process; :meth:`report` may be asked by anybody, any number of times."""

    def __init__(self, looks: Mapping[Checked, Callable[[], object]]) -> None:
        self._looks = looks
        self._threads = ThreadPoolExecutor(len(looks), "readyz")
        self._door = ThreadPoolExecutor(1, "readyz-door")  # one at a time; the next ones get its answer
        self._known: tuple[float, Report] | None = None

    async def report(self) -> Report:
        return await asyncio.get_running_loop().run_in_executor(self._door, self.look)

    def look(self) -> Report:
        if self._known is not None and time.monotonic() - self._known[0] < KEPT_SECONDS:
            return self._known[1]
        report = self._look()
        self._known = (time.monotonic(), report)
        return report

    def close(self) -> None:
        for threads in (self._door, self._threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> Report:
        asked = {name: self._threads.submit(look) for name, look in self._looks.items()}
        wait(asked.values(), PATIENCE_SECONDS)
        states: dict[str, State] = {}
        troubles = []
        for name, answer in asked.items():
            states[name], trouble = _judge(name, answer)
            if trouble is not None:
                troubles.append(trouble)
        if states.get("database") != "ok" and "migrations" in states:  # one cause, one sentence
            states["migrations"] = "unknown"
            troubles = [trouble for trouble in troubles if trouble.check != "migrations"]
        for trouble in troubles:
            reason = trouble.reason or None
            log.warning("readyz.failed", check=trouble.check, detail=trouble.detail, reason=reason)
        return Report(states, troubles)


def _judge(name: Checked, answer: "Future[object]") -> tuple[State, Trouble | None]:
    if not answer.done():
        answer.cancel()
        detail = f"The {name} did not answer within {PATIENCE_SECONDS:g} s."
        return "unavailable", Trouble(name, detail, _HINTS[name])
    error = answer.exception()
    if error is None:
        return "ok", None
    if isinstance(error, Unknown):
        return "unknown", None
    if isinstance(error, NotReady):
        return "unavailable", Trouble(name, error.detail, error.hint)
    reason = str(error).partition("\n")[0]
    return "unavailable", Trouble(name, f"The {name} does not answer.", _HINTS[name], reason)


def readiness_of(services: Services) -> Readiness:
    """The looks of the web process."""
    # Connections of its own: those of the pool may all be busy, and an answer is wanted all the same.
    engine = create_engine(
        services.engine.url,
        poolclass=NullPool,
        connect_args=connect_arguments(services.engine.url, int(PATIENCE_SECONDS)),
    )
    give_up_after(engine, PATIENCE_SECONDS)
    return Readiness(
        {
            "database": lambda: _answers(engine),
            "migrations": lambda: _is_migrated(engine),
            "broker": services.publisher.ping,
            "storage": services.store.check,
            "disk": lambda: _has_room(services.settings),
        }
    )


def _answers(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def _is_migrated(engine: Engine) -> None:
    """The database has this version's tables, or newer ones: while a rolling upgrade lasts, the old web
    processes serve on after the migration."""
    try:
        known, head = migrations.revisions()
    except CommandError as error:
        raise Unknown(str(error)) from error
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    if not found:
        raise NotReady("The database has no tables yet.", _HINTS["migrations"])
    behind = sorted(revision for revision in found if revision in known and revision != head)
    if behind:
        raise NotReady(
            f"The database is at revision {', '.join(behind)}; this version needs {head}.",
            _HINTS["migrations"],
        )


def _has_room(settings: Settings) -> None:
    for usage in room(settings).values():
        if usage.free < settings.disk_reserve_bytes:
            raise NotReady(
                f"The disk is nearly full: {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB are free, "
                f"and {settings.disk_reserve_bytes / 1e9:.1f} GB are wanted.",
                "Delete jobs, models or data sets that nobody needs, or give the service a larger disk.",
            )


def room(settings: Settings) -> dict[str, Room]:
    """The disks that this process writes to: for its own folder and, unless in a bucket, for the objects."""
    found = {"var": settings.var_dir}
    url = urlsplit(settings.objects_url())
    if url.scheme == "file":
        found["objects"] = Path(unquote(url.path))
    usages = {name: shutil.disk_usage(path) for name, path in found.items() if path.exists()}
    return {name: Room(usage.free, usage.total) for name, usage in usages.items()}
