"""The bytes of one request, taken in block by block. What has come counts, however the request ends.

A block is written while the next one comes in; then the database is told how far the upload is. So a
process that is killed loses at most two blocks or two seconds, and a connection that is cut loses nothing
that arrived.
"""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Final

import anyio
import structlog
from starlette.concurrency import run_in_threadpool

from app.core.errors import (
    ChecksumMismatch,
    NotFound,
    UnsafeSerialization,
    UnsupportedFormat,
    UploadLocked,
    UploadTooLarge,
)
from app.core.unit import Services
from app.storage.pieces import BLOCK_BYTES, Piece
from app.uploads import service, tus
from app.uploads.formats import check_format
from app.uploads.multipart import HEAD_BYTES
from app.uploads.service import Turn

TICK_SECONDS: Final = 2.0  # a slow client's bytes are written down at least this often

log = structlog.get_logger()


async def receive(
    services: Services, turn: Turn, body: AsyncIterator[bytes], checksum: tus.Checksum | None
) -> tus.State:
    """Take the request's body in; how far the upload is afterwards.

    Raises UploadTooLarge, UnsupportedFormat, UnsafeSerialization, ChecksumMismatch, UploadLocked or NotFound.
    """
    receiving = _Receiving(services, turn, checksum)
    try:
        state = await receiving.run(body)
    except BaseException as error:
        with anyio.CancelScope(shield=True):  # a client that is gone, or a server that stops
            await receiving.give_up(error)
        raise
    if state.complete:
        await run_in_threadpool(service.check_sha256, services, turn, receiving.sha256)
    return state


class _Receiving:
    def __init__(self, services: Services, turn: Turn, checksum: tus.Checksum | None) -> None:
        self._services, self._turn, self._checksum = services, turn, checksum
        self._store = services.store.pieces
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._received = turn.offset  # with the block
        self._stored = turn.offset  # without it
        self._written: dict[int, Piece] = {}  # by this request, by their start
        self._piece = turn.pieces[-1] if self._store.grow and turn.may_go_on and turn.pieces else None
        self._whole = services.digests.take(turn.upload_id, turn.offset)  # None: not known here
        self._before = self._whole.copy() if self._whole is not None else None
        self._part = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._head: bytearray | None = bytearray() if turn.offset < HEAD_BYTES else None
        self._writing: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def sha256(self) -> str | None:
        """Of all that is stored, where this process saw all of it."""
        return self._whole.hexdigest() if self._whole is not None else None

    async def run(self, body: AsyncIterator[bytes]) -> tus.State:
        if self._head is not None and self._turn.offset:
            self._head += await run_in_threadpool(self._store.head, self._turn.pieces, HEAD_BYTES)
        ticking = asyncio.create_task(self._tick())
        try:
            async for chunk in body:
                self._take(chunk)
                if self._block_bytes >= BLOCK_BYTES:
                    await self._start_writing()
        finally:
            ticking.cancel()
        await self._settle()
        return await run_in_threadpool(self._end)

    def _take(self, chunk: bytes) -> None:
        if self._received + len(chunk) > self._turn.length:
            raise tus.too_long(self._turn.length)
        self._received += len(chunk)
        self._block.append(chunk)
        self._block_bytes += len(chunk)
        if self._head is None:
            return
        self._head += chunk[: HEAD_BYTES - len(self._head)]
        if len(self._head) >= HEAD_BYTES or self._received == self._turn.length:
            check_format(bytes(self._head), self._turn.filename, self._turn.kind)
            self._head = None

    async def _tick(self) -> None:
        """Let no byte of a slow client wait for long. What goes wrong here the next block meets as well."""
        with contextlib.suppress(Exception):
            while True:
                await asyncio.sleep(TICK_SECONDS)
                await self._start_writing()

    async def _start_writing(self) -> None:
        """Write the block while the next one comes in."""
        async with self._one_at_a_time:
            await self._settle()
            if block := self._new_block():
                self._writing = asyncio.create_task(run_in_threadpool(self._write, block))

    def _new_block(self) -> list[bytes]:
        block, self._block, self._block_bytes = self._block, [], 0
        return block

    async def _settle(self) -> None:
        """Wait for the block that is being written; raises what became of it, now and every time."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    def _write(self, block: list[bytes]) -> None:
        """In a thread: store a block, hash it, and write down how far the upload is."""
        if self._piece is None or not self._store.grow:
            self._piece = self._store.begin(self._turn.upload_id, self._stored)
        self._piece = self._store.write(self._piece, block)
        self._written[self._piece.start] = self._piece
        self._stored += sum(map(len, block))
        for digest in (self._whole, self._part):
            if digest is not None:
                for chunk in block:
                    digest.update(chunk)
        self._advance(ends=False)

    def _advance(self, *, ends: bool) -> tus.State:
        if self._part is not None and not ends:  # these bytes count once all of them match their checksum
            return service.advance(self._services, self._turn, [], self._turn.offset, ends=False)
        pieces = list(self._written.values())
        sha256 = self.sha256 if self._stored == self._turn.length else None
        state = service.advance(self._services, self._turn, pieces, self._stored, ends=ends, sha256=sha256)
        self._written.clear()  # only now: what was not written down is tried again
        return state

    def _end(self) -> tus.State:
        """In a thread: the rest of the request, and its checksum."""
        self._write_rest()
        self._compare()
        state = self._advance(ends=True)
        if not state.complete:
            self._remember()
        return state

    def _write_rest(self) -> None:
        if block := self._new_block():
            self._write(block)

    def _remember(self) -> None:
        if self._whole is not None:
            self._services.digests.keep(self._turn.upload_id, self._stored, self._whole)

    def _compare(self) -> None:
        if self._checksum is None or self._part is None:
            return
        if not hmac.compare_digest(self._part.digest(), self._checksum.digest):
            raise ChecksumMismatch(
                f"The {self._checksum.algorithm} of the {self._stored - self._turn.offset:,} bytes of this "
                "request is not the one in Upload-Checksum.",
                hint=f"They were dropped: send them again from byte {self._turn.offset:,}.",
            )

    async def give_up(self, error: BaseException) -> None:
        """Keep what came before a cut, drop what was refused."""
        log.info("upload.interrupted", upload=self._turn.upload_id, reason=type(error).__name__)
        try:
            await self._settle()
            await run_in_threadpool(self._keep_or_drop, error)
        except Exception as second:  # the database or the store is away: the turn ends by itself
            log.warning("upload.not_kept", upload=self._turn.upload_id, error=str(second).partition("\n")[0])

    def _keep_or_drop(self, error: BaseException) -> None:
        match error:
            case UploadLocked() | NotFound():
                return  # it is another's turn, or nobody's any more
            case UnsupportedFormat() | UnsafeSerialization():
                service.abandon(self._services, self._turn.upload_id)
            case _ if self._part is not None:  # wrong, or cut so that nobody can tell whether it is right
                service.advance(self._services, self._turn, [], self._turn.offset, ends=True)
                if self._before is not None:
                    self._services.digests.keep(self._turn.upload_id, self._turn.offset, self._before)
            case _:
                if not isinstance(error, UploadTooLarge):
                    self._write_rest()
                self._advance(ends=True)
                self._remember()
