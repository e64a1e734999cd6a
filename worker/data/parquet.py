"""Parquet data sets, as Hugging Face writes them, to a canonical data set: a file, or several in an archive.

Rows are read some at a time into a file of the images' own bytes (`Spool`), under the limits of an archive's
members; from there on they are decoded like any others.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.core.errors import MalformedDataset, ResourceLimit
from worker.data import folders, layout, split
from worker.data.archive import Archive, Entry
from worker.data.limits import Limits
from worker.data.parquet_columns import Columns, find_columns
from worker.data.parquet_labels import LabelReader
from worker.data.progress import Report, between

MAGIC: Final = b"PAR1"
_ENCRYPTED: Final = b"PARE"
_TAIL: Final = 8  # the footer's length, and the magic again
_MAX_FOOTER: Final = 64_000_000  # two million rows in groups of a hundred take 10 MB
_MAX_STRING: Final = 32_000_000  # in the footer: the names of 100,000 classes take some megabytes
_MAX_ITEMS: Final = 1_000_000  # of one list in the footer
_BATCH_BYTES: Final = 64_000_000
_BATCH_ROWS: Final = 128
_RATIO: Final = 20  # image files hardly shrink; a dictionary's value that many rows name can be any number
_READ_BYTES: Final = 1 << 20
_SPOOLING: Final = 0.2  # of an inspection's time
_AGAIN: Final = "Download or write it again, and compare the size."


def ingest_file(
    upload: Path, target: Path, classes: Mapping[str, Any] | None, limits: Limits, report: Report
) -> dict[str, Any]:
    """One Parquet file; its name is not known, so a column `split` alone can tell the parts."""
    with _Reader(target.parent, limits) as reader:
        reader.read(upload, "The file", None)
        return reader.store([], target, classes, report)


def ingest_archive(
    archive: Archive, target: Path, classes: Mapping[str, Any] | None, limits: Limits, report: Report
) -> dict[str, Any]:
    """All Parquet files of an archive as one data set."""
    files = [entry for entry in archive.entries if layout.is_parquet(entry.name)]
    others = [entry.name for entry in archive.entries if not layout.is_parquet(entry.name)]
    parts = _parts(files)
    extracted = target.parent / "extracted.parquet"
    with ExitStack() as stack:
        stack.callback(extracted.unlink, missing_ok=True)
        reader = stack.enter_context(_Reader(target.parent, limits))
        for done, entry in enumerate(files, 1):
            archive.extract(entry, extracted)
            reader.read(extracted, entry.name, parts[entry.name])
            report({"type": "progress", "fraction": round(_SPOOLING * done / len(files), 2)})
        return reader.store(others, target, classes, report)


def _parts(files: Sequence[Entry]) -> dict[str, layout.Part | None]:
    parts = {entry.name: layout.part_of_file(entry.name) for entry in files}
    loose = next((name for name, part in parts.items() if part is None), None)
    told = next((name for name, part in parts.items() if part is not None), None)
    if loose is not None and told is not None:
        raise MalformedDataset(
            f"{told} names the part that it belongs to, {loose} does not.",
            hint="Begin all names with train, validation or test (train-00000-of-00002.parquet), or none.",
        )
    return parts


class _Reader:
    """Reads files one after the other; their images lie in a spool until they are decoded."""

    def __init__(self, scratch: Path, limits: Limits) -> None:
        self._labels = LabelReader()
        self._parts: list[layout.Part | None] = []
        self._spool = Spool(scratch / "encoded_images", limits)
        self._limits = limits
        self._columns: Columns | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def read(self, path: Path, name: str, part: layout.Part | None) -> None:
        """Take in all rows of one file. `part`: what its name says."""
        self._spool.begin(path.stat().st_size)
        with _refuse_damage(name):
            file = _open(path, name)
        with file:
            columns = self._check(file, name)
            found = 0
            for batch in _batches(file, columns, name):
                self._take(batch, columns, name, found, part)
                found += batch.num_rows
            said = file.metadata.num_rows
        if found != said:
            raise MalformedDataset(f"{name} says that it has {said:,} rows and has {found:,}.", hint=_AGAIN)

    def store(
        self, others: list[str], target: Path, classes: Mapping[str, Any] | None, report: Report
    ) -> dict[str, Any]:
        """Decode what was read into the canonical file, and say what it holds."""
        listing = self._listing(others, classes)
        return folders.store(self._spool, listing, target, self._limits, between(report, _SPOOLING, 1))

    def _check(self, file: pq.ParquetFile, name: str) -> Columns:
        with _refuse_damage(name):
            _check_counts(file.metadata, name, self._limits, len(self._parts))
            columns = find_columns(file.schema_arrow, name)
        self._labels.agree(columns, name)
        self._columns = self._columns or columns
        return columns

    def _take(
        self, batch: pa.RecordBatch, columns: Columns, name: str, begin: int, part: layout.Part | None
    ) -> None:
        with _refuse_damage(name):
            images = _images(batch, columns)
            if columns.label is not None:
                self._labels.add(batch.column(columns.label), name, begin)
            told = None if columns.split is None else batch.column(columns.split).to_pylist()
        for row, data in enumerate(images, begin):
            if data is None:
                raise MalformedDataset(
                    f"{name}, row {row} has no image.",
                    hint="Remove such rows, or embed the files that they name: Dataset.push_to_hub does.",
                )
            self._spool.append(f"{name}, row {row}", data)
        self._parts += [part] * batch.num_rows if told is None else _split(told, name, begin)

    def _listing(self, others: list[str], classes: Mapping[str, Any] | None) -> folders.Listing:
        images, parts = self._spool.entries, set(self._parts)
        if len(images) < 2:
            raise MalformedDataset(f"The table has {len(images)} rows. Two are the least.")
        if None in parts and len(parts) > 1:
            raise MalformedDataset(
                "Only some of the files have a column `split`.", hint="Give it to all of them, or to none."
            )
        labels, names = self._labels.settle(classes)
        given = parts == {"train", "test"}
        in_test = (
            np.array([part == "test" for part in self._parts])
            if given
            else split.choose_test_rows(labels, len(images))
        )
        assert self._columns is not None
        return folders.Listing(images, labels, names, in_test, given, others, self._columns.described())


class Spool:
    """Encoded images end to end in one file of our own: an archive that anything can be put into."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.entries: list[Entry] = []
        self._path, self._limits = path, replace(limits, ratio=min(limits.ratio, _RATIO))
        self._packed = self._size = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    def begin(self, packed: int) -> None:
        """Say that what follows comes out of a file of so many bytes."""
        self._packed += packed

    def append(self, name: str, data: memoryview) -> None:
        """Raises ResourceLimit for an image too large, or rows that unfold into far more than their file."""
        folders.check_size(name, len(data), self._limits)
        self._limits.check_unpacked(self._size + len(data), self._packed, so_far=True)
        entry = Entry(name, len(data), self._size)
        while data:
            data = data[os.pwrite(self._fd, data, self._size) :]
            self._size = entry.record + entry.size - len(data)
        self.entries.append(entry)

    def read(self, entry: Entry) -> bytes:
        return os.pread(self._fd, entry.size, entry.record)

    def extract(self, entry: Entry, target: Path) -> None:
        target.write_bytes(self.read(entry))


@contextmanager
def _refuse_damage(name: str) -> Iterator[None]:
    """Whatever the Parquet reader raises becomes one clear refusal."""
    try:
        yield
    except MemoryError as error:
        raise ResourceLimit(
            f"{name} takes more memory to read than there is: {str(error)[:200]}.",
            hint="Write it again with smaller row groups: to_parquet(…, batch_size=100).",
        ) from error
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MalformedDataset(f"{name} cannot be read as Parquet: {reason}.", hint=_AGAIN) from error


def _open(path: Path, name: str) -> pq.ParquetFile:
    _check_footer(path, name)
    pa.set_memory_pool(pa.system_memory_pool())  # the others set much address space aside
    return pq.ParquetFile(
        path,
        pre_buffer=False,
        buffer_size=_READ_BYTES,
        thrift_string_size_limit=_MAX_STRING,
        thrift_container_size_limit=_MAX_ITEMS,
        page_checksum_verification=True,
    )


def _check_footer(path: Path, name: str) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
    length, magic = int.from_bytes(tail[:4], "little"), tail[4:]
    if magic == _ENCRYPTED:
        raise MalformedDataset(f"{name} is encrypted.", hint="Write it without encryption.")
    if magic != MAGIC or length > size - _TAIL - len(MAGIC):
        raise MalformedDataset(f"{name} has no Parquet footer: it is cut short or damaged.", hint=_AGAIN)
    if length > _MAX_FOOTER:
        raise ResourceLimit(
            f"The footer of {name} has {length:,} bytes; the limit is {_MAX_FOOTER:,}.",
            hint="Write it with fewer columns, or larger row groups.",
            limit=_MAX_FOOTER,
        )


def _check_counts(about: pq.FileMetaData, name: str, limits: Limits, before: int) -> None:
    """What the footer says of itself, before any row is read."""
    counts = [about.row_group(index).num_rows for index in range(about.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != about.num_rows:
        raise MalformedDataset(
            f"{name} says that it has {about.num_rows:,} rows; its row groups have {sum(counts):,}.",
            hint=_AGAIN,
        )
    limits.check_images(before + about.num_rows)


def _batches(file: pq.ParquetFile, columns: Columns, name: str) -> Iterator[pa.RecordBatch]:
    """The wanted columns of all row groups, some rows at a time."""
    for index in range(file.num_row_groups):
        with _refuse_damage(name):
            group = file.metadata.row_group(index)
            # Not the average: of a column with a dictionary every row can be as large as the whole.
            rows = min(max(_BATCH_BYTES // max(group.total_byte_size, 1), 1), _BATCH_ROWS)
            batches = file.iter_batches(rows, row_groups=[index], columns=columns.wanted, use_threads=False)
        while True:
            with _refuse_damage(name):
                batch = next(batches, None)
            if batch is None:
                break
            yield batch


def _images(batch: pa.RecordBatch, columns: Columns) -> Iterator[memoryview | None]:
    array = batch.column(columns.image)
    if columns.image_path != columns.image:
        array = pc.struct_field(array, "bytes")
    return (memoryview(value.as_buffer()) if value.is_valid else None for value in array)


def _split(told: list[Any], name: str, begin: int) -> list[layout.Part | None]:
    parts = [layout.PARTS.get(str(value).lower()) for value in told]
    if None in parts:
        row = parts.index(None)
        raise MalformedDataset(
            f"{name}, row {begin + row} is of the split {str(told[row])[:60]!r}.",
            hint=f"Splits are called {', '.join(layout.PARTS)}.",
        )
    return list(parts)
