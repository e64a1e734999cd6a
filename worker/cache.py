"""Data sets that jobs have used, kept on the worker's disk and lent to scratch folders as hard links."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

GEOMETRY: Final = ("shape", "resize", "crop", "interpolation")  # all that decides the decoded pixels
PART_SECONDS: Final = 3_600.0  # longer than a file takes to be copied
_PART: Final = ".part-"

log = structlog.get_logger(__name__)


class DiskCache:
    """Read-only files by name, the least recently used going first when they are over the limit."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes

    def lend(self, name: str, target: Path) -> bool:
        """Put the file at `target`; False when it is not here."""
        cached = self._root / name
        try:
            os.utime(cached)
            _link(cached, target)
        except FileNotFoundError:
            return False
        return True

    def fetch(self, name: str, target: Path, load: Callable[[Path], None]) -> None:
        """Put the file at `target`, loading it there when it is not here, and keep it."""
        if not self.lend(name, target):
            load(target)
            self.keep(name, target)

    def keep(self, name: str, source: Path) -> None:
        """Remember a file; whole or not at all, and never more than the limit."""
        size = source.stat().st_size
        if size > self._limit_bytes or (self._root / name).exists():
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(size)
        part = self._root / f"{_PART}{secrets.token_hex(8)}"
        _link(source, part)
        part.chmod(0o444)  # the children that it is lent to may have another uid
        part.replace(self._root / name)

    def hashes(self) -> set[str]:
        """Whose copies lie here: the objects' hashes, with which all names begin."""
        return {path.name.partition("-")[0] for _, _, path in self._files()}

    def drop(self, hashes: Collection[str]) -> None:
        """Delete the copies of these objects, and what a killed worker left half written."""
        for _, _, path in self._files():
            if path.name.partition("-")[0] in hashes:
                path.unlink(missing_ok=True)
                log.info("cache.dropped", file=path.name)
        for part in self._root.glob(f"{_PART}*"):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_ctime < time.time() - PART_SECONDS:
                    part.unlink()

    def _make_room(self, size: int) -> None:
        files = sorted(self._files())
        total = sum(length for _, length, _ in files) + size
        for _, length, path in files:
            if total <= self._limit_bytes:
                return
            path.unlink(missing_ok=True)
            log.info("cache.evicted", file=path.name, bytes=length)
            total -= length

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was last used, its length, and where it is; other workers take files away meanwhile."""
        found = []
        for path in self._root.iterdir() if self._root.is_dir() else ():
            if not path.name.startswith(_PART):  # another worker is about to name it
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return found


def sized_name(sha256: str, spec: Mapping[str, Any]) -> str:
    """The name of a data set decoded for one input geometry."""
    geometry = json.dumps({name: spec.get(name) for name in GEOMETRY}, sort_keys=True)
    return f"{sha256}-{hashlib.sha256(geometry.encode()).hexdigest()[:16]}"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system
        shutil.copyfile(source, target)
