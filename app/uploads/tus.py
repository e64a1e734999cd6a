"""tus 1.0 (https://tus.io/protocols/resumable-upload) as a pure part: headers and an upload's state in, a
decision out. Nothing here reads a body, a clock or a database.

Core, creation, creation-with-upload, expiration, checksum and termination.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal, NamedTuple, cast, get_args

from app.core.errors import (
    MalformedRequest,
    OffsetMismatch,
    UnsupportedMediaType,
    UnsupportedTusVersion,
    UploadLocked,
    UploadTooLarge,
)

VERSION: Final = "1.0.0"
EXTENSIONS: Final = ("creation", "creation-with-upload", "expiration", "checksum", "termination")
CONTENT_TYPE: Final = "application/offset+octet-stream"
METADATA_BYTES: Final = 4096  # of the Upload-Metadata header; a file's name and hash need a few hundred

Headers = Mapping[str, str]  # names compared without regard to case, as Starlette's are
Kind = Literal["model", "dataset"]
Algorithm = Literal["sha256", "sha1", "md5"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,255}")  # ASCII without space and comma
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Checksum(NamedTuple):
    """What the bytes of one request must hash to."""

    algorithm: Algorithm
    digest: bytes


@dataclass(frozen=True)
class Creation:
    """What a client wants to send."""

    length: int
    metadata: str  # the header as it came: HEAD gives it back
    filename: str
    kind: Kind | None  # where the client says what it will become, its limit holds from the start
    sha256: str | None  # of the whole file


@dataclass(frozen=True)
class Append:
    """A request that brings bytes."""

    offset: int
    declared: int | None  # the body's Content-Length; None where it comes in chunks
    checksum: Checksum | None


@dataclass(frozen=True)
class State:
    """An upload as it stands."""

    length: int
    received: int
    expires_at: datetime
    locked: bool  # another request is writing at this moment
    metadata: str = ""

    @property
    def complete(self) -> bool:
        return self.received == self.length


def check_version(headers: Headers) -> None:
    """Raises UnsupportedTusVersion unless the client speaks 1.0.0; its request then must not be processed."""
    given = headers.get("tus-resumable")
    if given != VERSION:
        said = (
            "The header Tus-Resumable is missing"
            if given is None
            else f"tus {given[:40]!r} is not spoken here"
        )
        raise UnsupportedTusVersion(
            f"{said}; this server speaks {VERSION}.",
            hint=f"Send `Tus-Resumable: {VERSION}`.",
            headers={"Tus-Version": VERSION},
        )


def read_creation(headers: Headers) -> Creation:
    """The upload that a POST asks for. Raises MalformedRequest."""
    if "upload-defer-length" in headers:
        raise MalformedRequest("The length must be known: Upload-Defer-Length is not supported.")
    header = headers.get("upload-metadata", "")
    metadata = parse_metadata(header)
    kind, sha256 = metadata.get("kind") or None, metadata.get("sha256", "").lower() or None
    if kind is not None and kind not in get_args(Kind):
        raise MalformedRequest(f"The metadata's `kind` is {kind[:40]!r}; it can be `model` or `dataset`.")
    if sha256 is not None and _SHA256.fullmatch(sha256) is None:
        raise MalformedRequest("The metadata's `sha256` is not a SHA-256 in hex.")
    return Creation(
        length=_number(headers, "Upload-Length"),
        metadata=header,
        filename=metadata.get("filename") or metadata.get("name", ""),
        kind=cast(Kind | None, kind),
        sha256=sha256,
    )


def parse_metadata(header: str) -> dict[str, str]:
    """Upload-Metadata as texts: comma-separated pairs of a key and a base64 value, which may be left out."""
    if len(header) > METADATA_BYTES:
        raise MalformedRequest(f"Upload-Metadata is longer than {METADATA_BYTES:,} bytes.")
    if not (header.isascii() and header.isprintable()):
        raise MalformedRequest("Upload-Metadata holds a character that is not printable ASCII.")
    found: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if _KEY.fullmatch(key) is None or key in found:
            raise MalformedRequest(f"Upload-Metadata has an empty, odd or repeated key: {key[:40]!r}.")
        found[key] = _text(key, value.strip())
    return found


def _text(key: str, value: str) -> str:
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError as error:  # binascii.Error and UnicodeDecodeError are ValueErrors
        raise MalformedRequest(f"Upload-Metadata: the value of {key!r} is not base64 of UTF-8.") from error
    if "\0" in text:
        raise MalformedRequest(f"Upload-Metadata: the value of {key!r} holds a NUL character.")
    return text


def brings_data(headers: Headers) -> bool:
    """Whether the POST that creates an upload has its first bytes with it (creation-with-upload)."""
    is_empty = headers.get("content-length", "0").strip() == "0" and "transfer-encoding" not in headers
    if is_empty:
        return False
    _check_content_type(headers)
    return True


def read_append(headers: Headers) -> Append:
    """What a PATCH brings. Raises UnsupportedMediaType and MalformedRequest."""
    _check_content_type(headers)
    return _append(headers, _number(headers, "Upload-Offset"))


def read_first(headers: Headers) -> Append:
    """What a POST brings beside creating the upload."""
    return _append(headers, 0)


def _append(headers: Headers, offset: int) -> Append:
    declared = headers.get("content-length", "")
    length = int(declared) if _NUMBER.fullmatch(declared) else None
    return Append(offset=offset, declared=length, checksum=parse_checksum(headers.get("upload-checksum")))


def _check_content_type(headers: Headers) -> None:
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != CONTENT_TYPE:
        raise UnsupportedMediaType(f"The body's Content-Type is {given[:80]!r}; it must be {CONTENT_TYPE}.")


def parse_checksum(header: str | None) -> Checksum | None:
    """Upload-Checksum: an algorithm and a digest in base64."""
    if header is None:
        return None
    algorithm, _, value = header.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise MalformedRequest(
            f"The checksum algorithm {algorithm[:40]!r} is not supported.",
            hint=f"Use {', '.join(ALGORITHMS)}.",
        )
    try:
        digest = base64.b64decode(value.strip(), validate=True)
    except binascii.Error as error:
        raise MalformedRequest("Upload-Checksum: the digest is not base64.") from error
    return Checksum(algorithm, digest)


def decide_append(asked: Append, state: State) -> int:
    """How many bytes this request may bring at most; 0 where nothing is missing.

    Raises OffsetMismatch, UploadTooLarge or UploadLocked.
    """
    if asked.offset != state.received:
        raise offset_mismatch(asked.offset, state.received)
    left = state.length - state.received
    if asked.declared is not None and asked.declared > left:
        raise too_long(state.length)
    if state.locked:
        raise locked()
    return left


def offset_mismatch(asked: int, received: int) -> OffsetMismatch:
    return OffsetMismatch(
        f"The request begins at byte {asked:,}; {received:,} bytes have come.",
        hint="Ask for Upload-Offset with HEAD and go on from there.",
        headers={"Upload-Offset": str(received)},
    )


def too_long(length: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"The request brings more than the {length:,} bytes of Upload-Length.", limit=length
    )


def locked() -> UploadLocked:
    return UploadLocked(
        "Another request is writing to this upload.",
        hint="Wait a few seconds, then ask where it stands with HEAD.",
    )


def check_size(length: int, limit: int) -> None:
    """Raises UploadTooLarge for a file that will not be taken; told before its first byte."""
    if length > limit:
        raise UploadTooLarge(
            f"The file has {length:,} bytes; the limit for it is {limit:,} bytes.", limit=limit
        )


def describe(state: State) -> dict[str, str]:
    """The headers of every answer about an upload; once complete it expires too, unless it is used."""
    headers = {"Upload-Offset": str(state.received)}
    if not state.complete:
        headers["Upload-Expires"] = http_date(state.expires_at)
    return headers


def describe_fully(state: State) -> dict[str, str]:
    """The answer to HEAD."""
    headers = describe(state) | {"Upload-Length": str(state.length), "Cache-Control": "no-store"}
    return headers | ({"Upload-Metadata": state.metadata} if state.metadata else {})


def capabilities(max_bytes: int) -> dict[str, str]:
    """The answer to OPTIONS."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": ",".join(EXTENSIONS),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        "Tus-Max-Size": str(max_bytes),
    }


def http_date(moment: datetime) -> str:
    """RFC 9110's date: ``Tue, 24 Nov 2026 08:00:00 GMT``."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def _number(headers: Headers, name: str) -> int:
    given = headers.get(name.lower())
    if given is None:
        raise MalformedRequest(f"The header {name} is missing.")
    if _NUMBER.fullmatch(given) is None:
        raise MalformedRequest(f"{name} is {given[:40]!r}; it must be a whole number of bytes.")
    return int(given)
