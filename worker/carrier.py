"""Carries checkpoints from a child's folder to the object storage while the child goes on.

The child may be a stranger's puppet: its file is opened without following links, and nothing reads what is in
it until a later attempt's child does, in its own sandbox.
"""

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from threading import Condition, Thread
from typing import Final

import structlog

from app.jobs import checkpoints
from app.jobs.checkpoints import Kept, Reached
from app.storage.keys import checkpoint_key
from worker.runtime import Runtime

AGAIN_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Carrier:
    """One file at a time, in a thread of its own; of what waits, only the newest of each part is carried."""

    def __init__(self, carry: Callable[[str, Reached], None], discard: Callable[[str], None]) -> None:
        self._carry, self._discard = carry, discard
        self._waiting: dict[str, tuple[str, Reached]] = {}
        self._busy = self._over = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="carrier", daemon=True)

    def take(self, file: str, reached: Reached) -> None:
        with self._changed:
            if not self._thread.is_alive():
                self._thread.start()
            stale = list(self._waiting) if reached.part == "network" else [reached.part]
            for part in stale:
                if part in self._waiting:
                    self._discard(self._waiting.pop(part)[0])
            self._waiting[reached.part] = (file, reached)
            self._changed.notify_all()

    def finish(self, seconds: float) -> bool:
        """Wait until all is carried, at most so long, and take no more; whether it was all."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)
            self._over = True
            self._changed.notify_all()
        return done

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            try:
                self._carry(*taken)
            except Exception as error:  # the storage or the database is away: the next checkpoint will do
                log.warning("checkpoint.not_carried", file=taken[0], error=str(error).partition("\n")[0])
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> tuple[str, Reached] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if self._over:
                return None
            self._busy = True
            return self._waiting.pop("network" if "network" in self._waiting else "training")


def carrier_for(runtime: Runtime, folder: Path, job_id: str, owner: str) -> Carrier:
    """Into the job's place in the storage, as long as the lease is the owner's."""

    def carry(file: str, reached: Reached) -> None:
        key = checkpoint_key(job_id, f"{reached.part}-{secrets.token_hex(8)}")
        try:
            with open_plain(folder / file) as source:
                sha256 = hashlib.file_digest(source, "sha256").hexdigest()
                size = source.seek(0, os.SEEK_END)
                twice(lambda: _put(runtime, key, source))
            kept = Kept(key, size, sha256)
            twice(lambda: record(reached, kept))
        finally:
            discard(file)

    def record(reached: Reached, kept: Kept) -> None:
        with runtime.sessions.begin() as session:
            now = runtime.clock.now()
            stale = checkpoints.record(session, job_id, owner, reached, kept, now)
        checkpoints.delete_objects(runtime.store, [kept.key] if stale is None else stale)
        log.info("checkpoint.kept", job=job_id, part=reached.part, step=reached.step, bytes=kept.bytes)

    def discard(file: str) -> None:
        (folder / file).unlink(missing_ok=True)

    return Carrier(carry, discard)


def open_plain(path: Path) -> BufferedReader:
    """A file of the living child's: plain, and neither a link nor linked from elsewhere. Raises OSError."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        file.close()
        raise OSError(f"{path.name} is no plain file")
    return file


def _put(runtime: Runtime, key: str, source: BufferedReader) -> None:
    source.seek(0)
    runtime.store.put_at(key, source)


def twice(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        log.warning("checkpoint.again", error=str(error).partition("\n")[0])
        time.sleep(AGAIN_SECONDS)
        work()
