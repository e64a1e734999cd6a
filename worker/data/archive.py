"""Zip and tar as lists of safe names and a way to read one: nothing is ever unpacked to its own path."""

import bz2
import gzip
import lzma
import stat
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
_ZIP_LAYOUTS: Final = {0, stat.S_IFREG, stat.S_IFDIR}  # 0: written on a system without file types
_SPARSE_OR_ODD: Final = "is a link or a device; only plain files and folders are accepted"


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
        data = member.read()
        if len(data) != info.file_size:
            raise EOFError(f"{len(data)} of {info.file_size} bytes")
    return data


@contextmanager
def refuse_damage(name: str) -> Iterator[None]:
    """Whatever the unpackers raise on a damaged member becomes one clear refusal."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise MalformedDataset(f"{name} cannot be unpacked: {error}.") from error
    except (NotImplementedError, RuntimeError) as error:  # unknown compression, or a password is needed
        raise MalformedDataset(f"{name} cannot be unpacked: {error}.") from error


def open_zip(path: Path, limits: Limits, stack: ExitStack) -> zipfile.ZipFile:
    """A zip whose directory reads well and unfolds into no more than it may."""
    with refuse_damage("The archive"):
        file = stack.enter_context(zipfile.ZipFile(path))
    infos = file.infolist()
    _check_count(len(infos), limits)
    for info in infos:
        if info.flag_bits & 0x1:
            raise MalformedDataset(f"{info.filename} is encrypted.", hint="Pack it without a password.")
        if stat.S_IFMT(info.external_attr >> 16) not in _ZIP_LAYOUTS:
            raise MalformedDataset(f"{info.filename} {_SPARSE_OR_ODD}.")
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
            raise MalformedDataset(f"{entry.name} is cut short: {len(data)} of {entry.size} bytes.")
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
            raise MalformedDataset(f"A tar header of {size:,} bytes is no header.")
        return self._file.read(size)


def _open_tar(path: Path, limits: Limits, stack: ExitStack) -> Archive:
    file = stack.enter_context(path.open("rb"))
    named: list[tuple[str, int, int]] = []
    with refuse_damage("The archive"), tarfile.open(fileobj=_ShortReads(file), mode="r:") as tar:  # type: ignore[call-overload]
        for count, member in enumerate(tar, 1):
            _check_count(count, limits)
            tar.members.clear()  # tarfile would keep every record
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise MalformedDataset(f"{member.name} {_SPARSE_OR_ODD}.")
            named.append((member.name, member.size, member.offset_data))
        _check_end(file, tar.offset, path.stat().st_size)
    limits.check_unpacked(sum(size for _, size, _ in named), path.stat().st_size)
    return _TarArchive(file, _clean(named))


def _check_end(file: IO[bytes], end: int, size: int) -> None:
    """An archive ends with a block of zeros; tarfile takes a file cut between two members for a whole one."""
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise MalformedDataset(f"The tar archive is cut short or damaged at byte {end:,} of {size:,}.")


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
            raise MalformedDataset(f"The archive holds {name!r} twice.")
        entries[name] = Entry(name, size, record)
    return [entries[name] for name in sorted(entries)]


def safe_parts(raw: str) -> list[str]:
    """The folders and the file of a name inside an archive; names that lead out of it are refused."""
    text = raw.replace("\\", "/")  # some zips from Windows
    parts = [part for part in text.split("/") if part not in ("", ".")]
    drive = len(text) > 1 and text[1] == ":"
    if text.startswith("/") or drive or ".." in parts:
        raise MalformedDataset(f"The name {raw[:200]!r} leads out of the archive.")
    if not parts or len(text) > _MAX_NAME or not text.isprintable():
        raise MalformedDataset(f"The name {raw[:200]!r} is empty, too long or holds control characters.")
    return parts
