"""Zip and tar as lists of safe names and a way to read one: nothing is ever unpacked to its own path."""

import bz2
import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

from app.core.errors import MalformedDataset, ResourceLimit
from worker.data.limits import Limits

_CHUNK: Final = 1 << 20
_MAX_NAME: Final = 1000
_END_BYTES: Final = (
    22 + 65_535 + 20 + 56
)  # a zip's last record, its comment, and those of larger zips before it
_ZIP_LAYOUTS: Final = {0, stat.S_IFREG, stat.S_IFDIR}  # 0: written on a system without file types
_SPARSE_OR_ODD: Final = "is a link or a device; only plain files and folders are accepted"
_PLAIN_FILES: Final = "Pack copies of the files: zip -r follows links, tar needs -h."
_PACK_AGAIN: Final = "Pack it again from the original files, and compare the size after copying."
_RELATIVE: Final = "Pack from inside the folder: cd images && zip -r ../images.zip ."


@dataclass(frozen=True)
class Entry:
    """One plain file of an archive: its cleaned name, its unpacked size and the archive's own record."""

    name: str
    size: int
    record: Any


class Archive(Protocol):
    """Names known beforehand, contents one at a time."""

    entries: list[Entry]

    def read(self, entry: Entry) -> bytes: ...

    def extract(self, entry: Entry, target: Path) -> None:
        """Write one content to a file of our own, for readers that have to seek in it."""
        ...


@contextmanager
def open_archive(path: Path, scratch: Path, limits: Limits) -> Iterator[Archive]:
    """A zip or tar by its content, not its name. A compressed tar is unpacked into `scratch` first."""
    with path.open("rb") as file:
        head = file.read(262 + 16)
    with ExitStack() as stack:
        if head[:2] == b"PK":
            yield _open_zip(path, limits, stack)
        elif (unpack := _unpacker(head)) is not None:
            unpacked = scratch / "unpacked.tar"
            stack.callback(unpacked.unlink, missing_ok=True)
            _decompress(unpack, path, unpacked, limits)
            yield _open_tar(unpacked, limits, stack)
        elif head[257:262] == b"ustar":
            yield _open_tar(path, limits, stack)
        else:
            raise MalformedDataset(
                f"The file starts with {head[:6].hex(' ')}, which is no zip, tar or compressed tar.",
                hint="Pack the class folders as .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz.",
            )


class _ZipArchive:
    def __init__(self, file: zipfile.ZipFile, entries: list[Entry]) -> None:
        self._file, self.entries = file, entries

    def read(self, entry: Entry) -> bytes:
        return read_zip_member(self._file, entry.record)

    def extract(self, entry: Entry, target: Path) -> None:
        with refuse_damage(entry.name), self._file.open(entry.record) as member:
            _copy(member, target, entry.size)
            if member.read(1):  # the last read compares the checksum
                raise EOFError("there are more bytes than the directory says")


def read_zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes, its checksum compared."""
    with refuse_damage(info.filename), file.open(info) as member:
        # Not read(): that unpacks all there is, whatever size the directory says.
        data = member.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise EOFError(f"{len(data)} of {info.file_size} bytes")
    return data


@contextmanager
def refuse_damage(name: str) -> Iterator[None]:
    """Whatever the unpackers raise on a damaged member becomes one clear refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise  # our own disk, not the archive
        raise _damaged(name, error) from error
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        ValueError,
        struct.error,
        RecursionError,
        # unknown compression, or a password is needed
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> MalformedDataset:
    reason = str(error).strip().rstrip(".")[:300] or type(error).__name__
    return MalformedDataset(f"{name[:200]} cannot be unpacked: {reason}.", hint=_PACK_AGAIN)


def open_zip(path: Path, limits: Limits, stack: ExitStack) -> zipfile.ZipFile:
    """A zip whose directory reads well and unfolds into no more than it may."""
    with path.open("rb") as raw:
        _check_worth(raw, limits)
    with refuse_damage("The archive"):
        file = stack.enter_context(zipfile.ZipFile(path))
    infos = file.infolist()
    _check_count(len(infos), limits)
    for info in infos:
        if info.flag_bits & 0x1:
            raise MalformedDataset(f"{info.filename[:200]} is encrypted.", hint="Pack it without a password.")
        if stat.S_IFMT(info.external_attr >> 16) not in _ZIP_LAYOUTS:
            raise MalformedDataset(f"{info.filename[:200]} {_SPARSE_OR_ODD}.", hint=_PLAIN_FILES)
    limits.check_unpacked(sum(info.file_size for info in infos), path.stat().st_size)
    return file


def _copy(source: IO[bytes], target: Path, size: int) -> None:
    left = size
    with target.open("wb") as sink:
        while left and (chunk := source.read(min(left, _CHUNK))):
            sink.write(chunk)
            left -= len(chunk)
    if left:
        raise EOFError(f"{size - left:,} of {size:,} bytes")


def _check_worth(file: IO[bytes], limits: Limits) -> None:
    """What the zip's last record says (PKWARE appnote, 4.3.14 and 4.3.16), before zipfile makes an object of
    every name. A record that cannot be found is zipfile's to refuse."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _END_BYTES, 0))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        return
    count, directory = struct.unpack("<HI", tail[end + 10 : end + 16])
    larger = tail.rfind(b"PK\x06\x06", 0, end)
    if count == 0xFFFF and larger >= 0 and len(tail) - larger >= 56:
        count, directory = struct.unpack("<QQ", tail[larger + 32 : larger + 48])
    _check_count(count, limits)
    limits.check_worth(count, size - directory - 30 * count)


def _open_zip(path: Path, limits: Limits, stack: ExitStack) -> Archive:
    file = open_zip(path, limits, stack)
    named = [(info.filename, info.file_size, info) for info in file.infolist() if not info.is_dir()]
    return _ZipArchive(file, _clean(named))


class _TarArchive:
    def __init__(self, file: IO[bytes], entries: list[Entry]) -> None:
        self._file, self.entries = file, entries

    def read(self, entry: Entry) -> bytes:
        self._file.seek(entry.record)
        data = self._file.read(entry.size)
        if len(data) != entry.size:
            raise MalformedDataset(
                f"{entry.name} is cut short: {len(data)} of {entry.size} bytes.", hint=_PACK_AGAIN
            )
        return data

    def extract(self, entry: Entry, target: Path) -> None:
        with refuse_damage(entry.name):
            self._file.seek(entry.record)
            _copy(self._file, target, entry.size)


class _ShortReads:
    """A file that refuses long reads: tarfile loads extended headers whole, whatever length they claim."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise MalformedDataset(f"A tar header of {size:,} bytes is no header.", hint=_PACK_AGAIN)
        return self._file.read(size)


def _open_tar(path: Path, limits: Limits, stack: ExitStack) -> Archive:
    file = stack.enter_context(path.open("rb"))
    named: list[tuple[str, int, int]] = []
    total = 0
    with refuse_damage("The archive"), tarfile.open(fileobj=_ShortReads(file), mode="r:") as tar:  # type: ignore[call-overload]
        for count, member in enumerate(tar, 1):
            _check_count(count, limits)
            tar.members.clear()  # tarfile would keep every record
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise MalformedDataset(f"{member.name[:200]} {_SPARSE_OR_ODD}.", hint=_PLAIN_FILES)
            if member.size < 0:
                raise ValueError(f"{member.name[:200]} has the size {member.size}")
            total += member.size
            limits.check_worth(count, total)
            named.append((member.name, member.size, member.offset_data))
        _check_end(file, tar.offset, path.stat().st_size)
    limits.check_unpacked(sum(size for _, size, _ in named), path.stat().st_size)
    return _TarArchive(file, _clean(named))


def _check_end(file: IO[bytes], end: int, size: int) -> None:
    """An archive ends with a block of zeros; tarfile takes a file cut between two members for a whole one."""
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise MalformedDataset(
            f"The tar archive is cut short or damaged at byte {end:,} of {size:,}.", hint=_PACK_AGAIN
        )


def _unpacker(head: bytes) -> Callable[[Path], IO[bytes]] | None:
    known = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    return next((unpack for magic, unpack in known.items() if head.startswith(magic)), None)  # type: ignore[return-value]


def _decompress(unpack: Callable[[Path], IO[bytes]], path: Path, target: Path, limits: Limits) -> None:
    packed, unpacked = path.stat().st_size, 0
    with refuse_damage("The archive"), unpack(path) as source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            unpacked += len(chunk)
            limits.check_unpacked(unpacked, packed, so_far=True)
            sink.write(chunk)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.entries:
        raise ResourceLimit(
            f"The archive lists more than {limits.entries:,} names; {limits.images:,} images is the limit.",
            hint="Send fewer images, or have the limit raised.",
            limit=limits.images,
        )


def _clean(named: list[tuple[str, int, Any]]) -> list[Entry]:
    """Checked names, sorted, without hidden files; two files of one name are refused."""
    entries: dict[str, Entry] = {}
    for raw, size, record in named:
        parts = safe_parts(raw)
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        name = "/".join(parts)
        if name in entries:
            raise MalformedDataset(
                f"The archive holds {name[:200]!r} twice.", hint="Give every image a name of its own."
            )
        entries[name] = Entry(name, size, record)
    return [entries[name] for name in sorted(entries)]


def safe_parts(raw: str) -> list[str]:
    """The folders and the file of a name inside an archive; names that lead out of it are refused."""
    text = raw.replace("\\", "/")  # some zips from Windows
    parts = [part for part in text.split("/") if part not in ("", ".")]
    drive = len(text) > 1 and text[1] == ":"
    if text.startswith("/") or drive or ".." in parts:
        raise MalformedDataset(f"The name {raw[:200]!r} leads out of the archive.", hint=_RELATIVE)
    if wrong := _wrong_with(text, parts):
        raise MalformedDataset(f"The name {raw[:200]!r} {wrong}.", hint="Rename it, and pack again.")
    return parts


def _wrong_with(text: str, parts: list[str]) -> str | None:
    if not parts:
        return "names no file"
    if len(text) > _MAX_NAME:
        return f"has {len(text):,} letters; {_MAX_NAME:,} is the limit"
    return None if text.isprintable() else "holds control characters"
