"""A multipart form with one file, streamed: the file goes chunk by chunk to the store, the fields to memory.

Starlette's own form parser would spool the whole body before anybody looked at it. Here the caller has been
identified and the Content-Length checked before the first byte is read.
"""

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.errors import MalformedRequest, Problem, UploadTooLarge
from app.core.problems import invalid
from app.storage.store import Staged, Store

HEAD_BYTES: Final = 65_536  # what the sniffers look at
_HEADER_BYTES: Final = 16_384  # a name of 200 characters takes below 3,000, however it is written
_WITH_CURL: Final = "With curl: -F file=@network.onnx"
_FIELD_BYTES: Final = 262_144  # `classes` of 10,000 folder names fits
FORM_BYTES: Final = 1 << 20  # what fields and boundaries may add to the file's own limit
_NAME_CHARACTERS: Final = 200
_DRAIN_BYTES: Final = 8 << 20  # read on after a refusal, so that small clients get to see the answer


@dataclass(frozen=True)
class Upload:
    """A file that lies staged in the store, and the form's other fields."""

    staged: Staged
    filename: str
    head: bytes  # the file's first HEAD_BYTES
    fields: dict[str, str]
    resumable: str | None = None  # the id of the resumable upload that it came as


Check = Callable[[bytes, str], object]  # a sniffer: raises for what a file's first bytes rule out


async def receive_upload(
    request: Request, store: Store, limit: int, names: frozenset[str], check: Check
) -> Upload:
    """Stream the request's form into the store. Raises MalformedRequest, UploadTooLarge, ValidationFailed and
    what `check` raises of the file's first bytes; then, as when the client goes away, nothing of it stays."""
    boundary = _boundary(request)
    _check_declared_length(request, limit)
    body = request.stream()
    form = _Form(boundary, limit, names, check)
    try:
        staged = await store.stage(form.file_chunks(body))
    except Problem:
        await drain(body)
        raise
    return Upload(staged, form.filename or "", bytes(form.head), form.texts)


async def receive_file(request: Request, limit: int, names: frozenset[str]) -> tuple[bytes, dict[str, str]]:
    """A form with a small file, all of it in memory, and its fields. Raises as `receive_upload` does."""
    boundary = _boundary(request)
    _check_declared_length(request, limit)
    body = request.stream()
    form = _Form(boundary, limit, names, lambda _head, _name: None)
    try:
        data = b"".join([chunk async for chunk in form.file_chunks(body)])
    except Problem:
        await drain(body)
        raise
    return data, form.texts


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedRequest(
            "The request is no form: send the file as multipart/form-data with a boundary.", hint=_WITH_CURL
        )
    return boundary


def _check_declared_length(request: Request, limit: int) -> None:
    declared = declared_length(request)
    if declared is not None and declared > limit + FORM_BYTES:
        raise _too_large(f"The request has {declared:,} bytes", limit)


def declared_length(request: Request) -> int | None:
    """The length that the client announces; None for a body sent in chunks."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdecimal() and len(declared) < 20 else None


def _too_large(said: str, limit: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"{said}; the limit for this file is {limit:,} bytes.",
        hint="Send a smaller file, or have the limit raised.",
        limit=limit,
    )


def _unreadable(reason: object) -> MalformedRequest:
    return MalformedRequest(f"The form cannot be read: {str(reason).rstrip('.')[:300]}.", hint=_WITH_CURL)


async def drain(body: AsyncIterator[bytes]) -> None:
    """Read a little on: a client still sending when the connection closes would lose the answer."""
    left = _DRAIN_BYTES
    with contextlib.suppress(Exception):  # the refusal is what matters, whatever the client does now
        async for chunk in body:
            left -= len(chunk)
            if left < 0:
                return


@dataclass
class _Part:
    """The part of the form that is being read."""

    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    header_bytes: int = 0  # of all its headers together
    disposition: bytes = b""
    name: str = ""
    is_file: bool = False


class _Form:
    """The parser's callbacks and what they gather."""

    def __init__(self, boundary: bytes, limit: int, names: frozenset[str], check: Check) -> None:
        self.filename: str | None = None
        self.head = bytearray()
        self.texts: dict[str, str] = {}  # once the form has been read to its end
        self._fields: dict[str, bytearray] = {}
        self._limit, self._names, self._check = limit, names, check
        self._part = _Part()
        self._pending: deque[bytes] = deque()
        self._file_bytes = 0
        self._ended = False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise _unreadable(error) from error

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": lambda data, start, end: self._take(self._part.header_name, data[start:end]),
            "on_header_value": lambda data, start, end: self._take(self._part.header_value, data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    async def file_chunks(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The file's bytes as they come; fields before and after it are gathered on the way."""
        async for chunk in body:
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _unreadable(error) from error
            while self._pending:
                yield self._pending.popleft()
        if not self._ended:
            raise MalformedRequest(
                "The form ends before its closing boundary: the upload is incomplete.", hint="Send it again."
            )
        if self.filename is None:
            raise invalid(("file",), "The form has no file part named `file`.", hint=_WITH_CURL)
        self.texts = {name: _text(name, bytes(raw)) for name, raw in self._fields.items()}

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _take(self, gathered: bytearray, piece: bytes) -> None:
        self._part.header_bytes += len(piece) + 1  # empty ones count as well
        if self._part.header_bytes > _HEADER_BYTES:
            raise _unreadable(f"the headers of a part are longer than {_HEADER_BYTES:,} bytes")
        gathered.extend(piece)

    def _on_header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            self._part.disposition = bytes(self._part.header_value)
        self._part.header_name.clear()
        self._part.header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "file":
            self._begin_file(options)
        elif name in self._names and name not in self._fields:
            self._fields[name] = bytearray()
        else:
            known = ", ".join(f"`{known}`" for known in sorted(self._names | {"file"}))
            said = "is given twice" if name in self._fields else f"is not known; this form has {known}"
            raise invalid((name,), f"The field {name[:80]!r} {said}.")
        self._part.name = name

    def _begin_file(self, options: dict[bytes, bytes]) -> None:
        if self.filename is not None:
            raise invalid(("file",), "The form has more than one file.")
        self.filename = safe_filename(options.get(b"filename", b"").decode("utf-8", "replace"))
        self._part.is_file = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._on_file_data(data[start:end])
            return
        gathered = self._fields[self._part.name]
        gathered.extend(data[start:end])
        if len(gathered) > _FIELD_BYTES:
            raise invalid((self._part.name,), f"The field is longer than {_FIELD_BYTES:,} bytes.")

    def _on_file_data(self, piece: bytes) -> None:
        self._file_bytes += len(piece)
        if self._file_bytes > self._limit:
            raise _too_large(f"The file has at least {self._file_bytes:,} bytes", self._limit)
        if len(self.head) < HEAD_BYTES:
            self.head.extend(piece[: HEAD_BYTES - len(self.head)])
            if len(self.head) == HEAD_BYTES:  # a shorter file is looked at when all of it is here
                self._check(bytes(self.head), self.filename or "")
        self._pending.append(piece)

    def _on_end(self) -> None:
        self._ended = True


def _text(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise invalid((name,), f"The field `{name}` is not UTF-8.") from error
    if "\0" in text:
        raise invalid((name,), f"The field `{name}` holds a NUL character.")
    return text


def safe_filename(given: str) -> str:
    """The last part of a client's path without control characters; never used as a path by us."""
    last = PurePosixPath(given.replace("\\", "/")).name
    return "".join(c for c in last if c.isprintable())[:_NAME_CHARACTERS]
