"""The pieces of uploads that come in several requests.

A piece belongs to the one request that began it, so a request that lost its turn can write what it likes and
harms nobody: the database names the pieces that count, and how many bytes of each. In a folder a piece grows
while its request lasts, and the request after it may go on with it; an object of S3 cannot grow, so there
every block is a piece of its own. Nothing is kept in a process: any web process can take the next request.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import obstore

from app.core.ids import is_id
from app.storage.blobs import Staged
from app.storage.keys import PIECES, piece_key, pieces_prefix, staging_key

BLOCK_BYTES: Final = 8 << 20  # of reads and writes; S3 wants parts of 5 MiB or more
BUFFERS: Final = 2  # of a writer: one fills while another goes out; obstore's own 12 would be 100 MB


@dataclass(frozen=True)
class Piece:
    """Bytes of an upload from `start` on. What its object holds beyond `bytes` does not count."""

    key: str
    start: int
    bytes: int = 0


class Pieces:
    """Pieces over obstore. All calls block: run them in a thread."""

    def __init__(self, backend: Any, root: Path | None = None) -> None:
        self._backend = backend
        self._root = root

    @property
    def grow(self) -> bool:
        """Whether more can be written to a piece that has bytes."""
        return self._root is not None

    def begin(self, upload_id: str, start: int) -> Piece:
        """A piece of the caller's own; nothing is written yet."""
        return Piece(piece_key(upload_id, start, secrets.token_hex(8)), start)

    def write(self, piece: Piece, chunks: Sequence[bytes]) -> Piece:
        """The piece with these bytes at its end."""
        if self._root is not None:
            _write_at(self._root / piece.key, piece.bytes, chunks)
        elif piece.bytes:
            raise ValueError(f"{piece.key} has bytes and cannot grow here")
        else:
            obstore.put(self._backend, piece.key, b"".join(chunks))
        return replace(piece, bytes=piece.bytes + sum(map(len, chunks)))

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes]:
        """The upload's bytes in order."""
        for piece in pieces:
            for offset in range(0, piece.bytes, BLOCK_BYTES):
                end = min(offset + BLOCK_BYTES, piece.bytes)
                yield bytes(obstore.get_range(self._backend, piece.key, start=offset, end=end))

    def head(self, pieces: Iterable[Piece], size: int) -> bytes:
        """The upload's first bytes, `size` of them or as many as there are."""
        found = b""
        for piece in pieces:
            wanted = min(piece.bytes, size - len(found))
            if wanted > 0:
                found += bytes(obstore.get_range(self._backend, piece.key, start=0, end=wanted))
        return found

    def digest(self, pieces: Iterable[Piece]) -> str:
        """The SHA-256 of the bytes in order, read once."""
        digest = hashlib.sha256()
        for block in self.read(pieces):
            digest.update(block)
        return digest.hexdigest()

    def gather(self, pieces: Sequence[Piece], sha256: str | None) -> Staged:
        """All bytes as one staged object, the pieces untouched. One piece costs no copy in a folder: it gets
        a second name; S3 copies it within."""
        key = staging_key(secrets.token_hex(16))
        size = sum(piece.bytes for piece in pieces)
        if len(pieces) == 1 and self._is_whole(pieces[0]):
            digest = sha256 or self.digest(pieces)
            obstore.copy(self._backend, pieces[0].key, key)
            if self._root is not None:
                os.utime(self._root / key)  # young: the sweep of staging must not take it for a leftover
            return Staged(sha256=digest, bytes=size, key=key)
        return Staged(sha256=self._join(pieces, key), bytes=size, key=key)

    def _is_whole(self, piece: Piece) -> bool:
        """Whether the object holds nothing beyond the bytes that count."""
        return bool(obstore.head(self._backend, piece.key)["size"] == piece.bytes)

    def _join(self, pieces: Sequence[Piece], key: str) -> str:
        digest = hashlib.sha256()
        writer = obstore.open_writer(self._backend, key, buffer_size=BLOCK_BYTES, max_concurrency=BUFFERS)
        try:
            for block in self.read(pieces):
                digest.update(block)
                writer.write(block)
        except BaseException:
            writer.close()  # obstore can't abort: complete it, then delete it
            obstore.delete(self._backend, key)
            raise
        writer.close()
        return digest.hexdigest()

    def delete(self, upload_id: str) -> None:
        """Delete all pieces of an upload, those that no longer count as well."""
        prefix = pieces_prefix(upload_id)
        for page in obstore.list(self._backend, prefix=prefix):
            for entry in page:
                with suppress(FileNotFoundError):
                    obstore.delete(self._backend, entry["path"])
        if self._root is not None:
            with suppress(OSError):  # not there, or a late writer put something in: the sweep comes again
                (self._root / prefix).rmdir()

    def uploads(self) -> set[str]:
        """The ids of all uploads that have pieces."""
        found = obstore.list_with_delimiter(self._backend, prefix=PIECES.rstrip("/"))
        names = {prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]}
        return {name for name in names if is_id(name, "upload")}  # nothing else here is ours to delete


def _write_at(path: Path, position: int, chunks: Sequence[bytes]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                written = os.pwrite(handle, rest, position)
                rest, position = rest[written:], position + written
    finally:
        os.close(handle)
