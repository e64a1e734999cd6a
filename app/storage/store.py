"""Objects by the hash of their bytes: on disk by default, on S3 by URL, in memory for tests.

An upload is staged under a random name while it streams and is hashed, then moved to its address; a reader
therefore never sees half an object, and equal files are stored once.
"""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import anyio
import obstore
from obstore.store import LocalStore, MemoryStore, from_url

from app.storage.blobs import Blob, Staged, Stored
from app.storage.keys import OBJECTS, STAGING, hash_of, object_key, staging_key
from app.storage.pieces import BUFFERS, Pieces
from app.storage.watched import Each, go_on, watched

if TYPE_CHECKING:  # the package has them in its annotations alone
    from obstore.store import RetryConfig

__all__ = ["Blob", "ObjectStore", "Staged", "Store", "Stored", "memory_store", "open_store"]

_PARTIAL = re.compile(r".*#\d+")
CHUNK_BYTES = 1 << 20  # of reads; a megabyte keeps a slow client's share of memory small
_PAGE = 500  # objects looked up in the database at once
RETRY_SECONDS: Final = 180.0  # of work that nobody waits for
SHORT_RETRY_SECONDS: Final = 30.0  # of requests: with the last try's own time they end within a minute
_BUFFER_BYTES = 8 << 20  # of writes; S3 wants parts of 5 MiB or more


class Store(Protocol):
    """Where uploads and artifacts lie. Missing objects raise FileNotFoundError."""

    @property
    def pieces(self) -> Pieces:
        """Where uploads lie that come in several requests."""
        ...

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take a stream in, hashing it; whatever interrupts it, nothing of it stays."""
        ...

    def keep(self, staged: Staged) -> None:
        """Move staged bytes to their address."""
        ...

    def discard(self, staged: Staged) -> None: ...

    def put_file(self, path: Path, each: Each = go_on) -> Blob:
        """`each` is called all the while, and may raise to break off: then nothing is at the address."""
        ...

    def put_bytes(self, data: bytes) -> Blob: ...

    def download_to(self, sha256: str, path: Path, each: Each = go_on) -> None:
        """`each` is called between chunks, and may raise to break off."""
        ...

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in chunks."""
        ...

    def exists(self, sha256: str) -> bool: ...

    def delete(self, sha256: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...

    def objects(self) -> Iterator[list[Stored]]:
        """All that lies at an address, in pages."""
        ...

    def written_at(self, sha256: str) -> datetime | None:
        """When the object's bytes were last written; None if there is no such object."""
        ...

    def clear_staging(self, before: datetime) -> int:
        """Delete what a killed process left half uploaded before this moment; how many files that was."""
        ...

    def put_at(self, key: str, source: IO[bytes]) -> None:
        """What is no content-addressed object: the name is the caller's, and must be new."""
        ...

    def download_at(self, key: str, path: Path, each: Each = go_on) -> None: ...

    def delete_at(self, key: str) -> None:
        """Delete it; one that is not there is no error."""
        ...

    def keys_under(self, prefix: str, before: datetime | None = None) -> list[str]:
        """All keys that begin so, and were written before the moment where one is given."""
        ...

    def check(self) -> None:
        """Raise if the store does not answer."""
        ...


class ObjectStore:
    """The store over obstore: a folder, an S3 bucket, or memory."""

    def __init__(self, backend: Any, root: Path | None = None) -> None:
        self._backend = backend
        self._root = root  # set for a folder, whose files get mode 0600
        self.pieces = Pieces(backend, root)

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        key = staging_key(secrets.token_hex(16))
        writer = obstore.open_writer_async(
            self._backend, key, buffer_size=_BUFFER_BYTES, max_concurrency=BUFFERS
        )
        digest, size = hashlib.sha256(), 0
        try:
            async for block in _blocks(chunks):
                size += len(block)
                hashing = asyncio.create_task(asyncio.to_thread(digest.update, block))
                try:
                    await writer.write(block)
                finally:
                    await hashing
        except BaseException:  # a client that went away arrives as a cancellation
            await self._abandon(writer, key)
            raise
        await writer.close()
        return Staged(sha256=digest.hexdigest(), bytes=size, key=key)

    async def _abandon(self, writer: Any, key: str) -> None:
        with anyio.CancelScope(shield=True):  # at shutdown this runs inside a cancelled task
            await writer.close()  # obstore can't abort: complete the upload, then delete it
            await obstore.delete_async(self._backend, key)

    def keep(self, staged: Staged) -> None:
        target = object_key(staged.sha256)
        obstore.rename(self._backend, staged.key, target)
        self._protect(target)

    def discard(self, staged: Staged) -> None:
        self._delete(staged.key)

    def put_file(self, path: Path, each: Each = go_on) -> Blob:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target = object_key(digest)
        self._do("put", each, target, path)
        self._protect(target)
        return Blob(sha256=digest, bytes=path.stat().st_size)

    def put_bytes(self, data: bytes) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        target = object_key(digest)
        obstore.put(self._backend, target, data)
        self._protect(target)
        return Blob(sha256=digest, bytes=len(data))

    def download_to(self, sha256: str, path: Path, each: Each = go_on) -> None:
        self.download_at(object_key(sha256), path, each)

    def put_at(self, key: str, source: IO[bytes]) -> None:
        obstore.put(self._backend, key, source)
        self._protect(key)

    def download_at(self, key: str, path: Path, each: Each = go_on) -> None:
        # In ranges: a single request for a large file would run into the HTTP client's time limit.
        size = self._do("head", each, key)["size"]
        with path.open("wb") as file:
            for chunk in self._ranges(key, 0, size, _BUFFER_BYTES, each):
                file.write(chunk)
                each()

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        return self._ranges(object_key(sha256), start, end, CHUNK_BYTES)

    def _ranges(self, key: str, start: int, end: int, step: int, each: Each = go_on) -> Iterator[bytes]:
        for offset in range(start, end, step):
            stop = min(offset + step, end)
            yield bytes(self._do("get_range", each, key, start=offset, end=stop))

    def _do(self, name: str, each: Each, *arguments: Any, **options: Any) -> Any:
        """One of obstore's operations, looked at meanwhile where somebody has anything to say."""
        if each is go_on:
            return getattr(obstore, name)(self._backend, *arguments, **options)
        later = getattr(obstore, f"{name}_async")
        return watched(lambda: later(self._backend, *arguments, **options), each)

    def exists(self, sha256: str) -> bool:
        return self.written_at(sha256) is not None

    def written_at(self, sha256: str) -> datetime | None:
        try:
            written: datetime = obstore.head(self._backend, object_key(sha256))["last_modified"]
        except FileNotFoundError:
            return None
        return written

    def objects(self) -> Iterator[list[Stored]]:
        for page in obstore.list(self._backend, prefix=OBJECTS, chunk_size=_PAGE):
            named = ((hash_of(entry["path"]), entry) for entry in page)
            yield [
                Stored(sha256, entry["size"], entry["last_modified"])
                for sha256, entry in named
                if sha256 is not None
            ]

    def delete(self, sha256: str) -> None:
        self._delete(object_key(sha256))

    def clear_staging(self, before: datetime) -> int:
        stale = self.keys_under(STAGING, before)
        for key in stale:
            self._delete(key)
        return len(stale) + self._clear_partial(before)

    def _clear_partial(self, before: datetime) -> int:
        """In a folder obstore writes beside the target, as `target#1`, and lists no such file."""
        if self._root is None:
            return 0
        deleted = 0
        for path in self._root.rglob("*#*"):
            with suppress(FileNotFoundError):  # it has come completely
                if _PARTIAL.fullmatch(path.name) and path.stat().st_mtime < before.timestamp():
                    path.unlink()
                    deleted += 1
        return deleted

    def delete_at(self, key: str) -> None:
        self._delete(key)
        if self._root is not None:
            with suppress(OSError):  # its folder holds something else, or is gone
                (self._root / key).parent.rmdir()

    def keys_under(self, prefix: str, before: datetime | None = None) -> list[str]:
        return [
            entry["path"]
            for page in obstore.list(self._backend, prefix=prefix)
            for entry in page
            if before is None or entry["last_modified"] < before
        ]

    def check(self) -> None:
        key = staging_key(f"check-{secrets.token_hex(8)}")
        obstore.put(self._backend, key, b"ok")
        self._delete(key)

    def _delete(self, key: str) -> None:
        try:
            obstore.delete(self._backend, key)
        except FileNotFoundError:
            return

    def _protect(self, key: str) -> None:
        if self._root is not None:
            path = self._root / key
            path.chmod(0o600)
            path.parent.chmod(0o700)


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer steps: the network brings them by 64 KiB."""
    gathered: list[bytes] = []
    size = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def memory_store() -> ObjectStore:
    """The same store with its bytes in memory: the double for tests."""
    return ObjectStore(MemoryStore())


def open_store(url: str, retry_seconds: float = RETRY_SECONDS) -> ObjectStore:
    """The store behind a URL. A folder is made if it is missing, and closed to everybody else.

    A bucket that fails or says nothing is asked again for `retry_seconds`; then the operation fails. One try
    has obstore's own limits, 5 s to connect and 30 s in all: to set them here would drop those of AWS_….
    """
    if not url.startswith("file://"):
        retries: RetryConfig = {"retry_timeout": timedelta(seconds=retry_seconds)}
        return ObjectStore(from_url(url, retry_config=retries))
    root = Path(unquote(urlsplit(url).path))
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    for folder in ("objects", "objects/sha256", "staging", "uploads", "checkpoints"):
        (root / folder).mkdir(mode=0o700, exist_ok=True)
        os.chmod(root / folder, 0o700)  # noqa: PTH101 - mkdir's mode is subject to the umask
    return ObjectStore(LocalStore(root), root)
