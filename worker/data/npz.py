"""An .npz to a canonical data set. Headers are read here, members streamed, and nothing is ever unpickled."""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from app.core.errors import MalformedDataset, UnsafeSerialization
from worker.data import split
from worker.data.archive import open_zip, refuse_damage
from worker.data.canonical import CanonicalWriter, Region
from worker.data.layout import MAX_INDEX
from worker.data.limits import Limits
from worker.data.progress import Progress, Report

Array = npt.NDArray[Any]
_EXPECTED: Final = "x and y, or x_train, y_train, x_test and y_test (without y: unlabelled)"
_SAVE: Final = "Save it again: numpy.savez_compressed(path, x=images.astype('uint8'), y=labels)."
_SHOWN: Final = 10  # names in a sentence
_BLOCK_BYTES: Final = 16_000_000
_MAX_NPY_HEADER: Final = 10_000  # numpy's own bound for a header it has not written
_LONGEST: Final = 200  # letters of what a sentence quotes
_MAX_CHANNELS: Final = 16  # multispectral cameras have up to 13; more is a transposed array
_ONE_PART: Final = ({"x"}, {"x", "y"}, {"x_train"}, {"x_train", "y_train"})
_TWO_PARTS: Final = ({"x_train", "x_test"}, {"x_train", "y_train", "x_test", "y_test"})


@dataclass(frozen=True)
class Member:
    """One array inside the .npz, as its header describes it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    info: zipfile.ZipInfo

    def __str__(self) -> str:
        size = " × ".join(map(str, self.shape)) or "a single value"
        return f"{self.name} ({str(self.dtype)[:_LONGEST]}, {size[:_LONGEST]})"

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class ImageForm:
    """How rows are stored: uint8 H×W×C, or float32 C×H×W used as it is."""

    dtype: str
    row_shape: tuple[int, int, int]

    @property
    def image(self) -> list[int]:
        a, b, c = self.row_shape
        return [a, b, c] if self.dtype == "uint8" else [b, c, a]


@dataclass(frozen=True)
class Source:
    """One x and its y: the train part, the test part, or both in one."""

    x: Member
    labels: npt.NDArray[np.int64] | None
    in_test: npt.NDArray[np.bool_]  # a flag a row


def ingest(
    upload: Path, target: Path, classes: Mapping[str, Any] | None, limits: Limits, report: Report
) -> dict[str, Any]:
    """Read the .npz at `upload`, write the canonical file `target`, and say what it holds."""
    if classes is not None:
        raise MalformedDataset(
            "classes maps folder names, and an .npz has none.",
            hint="Leave classes out: y holds the indices.",
        )
    with ExitStack() as stack:
        file = open_zip(upload, limits, stack)
        members, ignored = _members(file)
        form = _common_form([member for name, member in members.items() if name.startswith("x")], limits)
        sources = _sources(file, members)
        details = _details(sources, form, given="x_test" in members, ignored=ignored)
        with CanonicalWriter(target, details, limit_bytes=limits.unpacked_bytes) as writer:
            _write(writer, file, sources, form, target.parent, report)
    test = sum(int(source.in_test.sum()) for source in sources)
    total = sum(source.x.shape[0] for source in sources)
    return {
        "examples": {"train": total - test, "test": test},
        "classes": details["classes"],
        "image": details["image"],
        "labelled": sources[0].labels is not None,
        "details": details,
    }


def _members(file: zipfile.ZipFile) -> tuple[dict[str, Member], list[str]]:
    """The wanted arrays by name; others are passed over when a full set is there."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in file.infolist():
        name = info.filename.removesuffix(".npy")
        if name in infos:
            raise MalformedDataset(f"The .npz holds {name[:100]!r} twice.", hint=_SAVE)
        infos[name] = info
    wanted = {"x", "y", "x_train", "y_train", "x_test", "y_test"} & infos.keys()
    if wanted not in (*_ONE_PART, *_TWO_PARTS):
        found = ", ".join(repr(name[:100]) for name in sorted(infos)[:_SHOWN]) or "nothing"
        more = f" and {len(infos) - _SHOWN:,} more" if len(infos) > _SHOWN else ""
        raise MalformedDataset(f"The .npz holds {found}{more}; expected are {_EXPECTED}.", hint=_SAVE)
    return {name: _member(file, name, infos[name]) for name in sorted(wanted)}, sorted(infos.keys() - wanted)


def _member(file: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Member:
    with refuse_damage(name), file.open(info) as stream:
        dtype, shape, fortran = _npy_header(stream, name)
        body = info.file_size - stream.tell()
    member = Member(name, dtype, shape, fortran, info)
    if dtype.hasobject:
        raise UnsafeSerialization(
            f"{member} is a pickle: an array of Python objects.",
            hint="Save plain numbers: numpy.savez(path, x=images.astype('uint8'), y=labels).",
        )
    needed = math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape) or needed != body:
        raise MalformedDataset(
            f"{member} needs {needed:,} bytes and has {body:,}: the file is damaged.", hint=_SAVE
        )
    return member


def _npy_header(stream: IO[bytes], name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran, dtype = readers[version](stream, max_header_size=_MAX_NPY_HEADER)
    except Exception as error:  # numpy parses the header as a Python literal: many ways to be wrong
        raise MalformedDataset(f"{name} has no valid npy header: {_reason(error)}.", hint=_SAVE) from error
    return dtype, shape, fortran


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text[:_LONGEST] or type(error).__name__


def _common_form(members: Sequence[Member], limits: Limits) -> ImageForm:
    """The form of x_train and x_test, which must agree."""
    forms = [_image_form(member, limits) for member in members]
    if len(set(forms)) > 1:
        raise MalformedDataset(
            f"{members[0]} and {members[1]} hold images of different form.",
            hint="Save both as uint8 N × H × W × C of one size.",
        )
    limits.check_images(sum(member.shape[0] for member in members))
    return forms[0]


def _image_form(x: Member, limits: Limits) -> ImageForm:
    if x.dtype == np.uint8:
        form = _uint8_form(x)
    elif x.dtype.kind == "f" and x.dtype.itemsize in (2, 4, 8):
        form = _float_form(x)
    else:
        raise MalformedDataset(
            f"{x} is neither uint8 (N × H × W × C or N × H × W) nor float (N × C × H × W).",
            hint="For pixels from 0 to 255: x.astype('uint8').",
        )
    height, width, channels = form.image
    if min(x.shape) < 1 or channels > _MAX_CHANNELS:
        raise MalformedDataset(f"{x} has no images of 1 to {_MAX_CHANNELS} channels.", hint=_SAVE)
    limits.check_pixels(x.name, height, width)
    return form


def _uint8_form(x: Member) -> ImageForm:
    if len(x.shape) == 3:
        return ImageForm("uint8", (x.shape[1], x.shape[2], 1))
    if len(x.shape) != 4:
        raise MalformedDataset(
            f"{x} has {len(x.shape)} axes; expected are N × H × W × C or N × H × W.",
            hint="x.reshape(-1, height, width, channels)",
        )
    if x.shape[1] in (1, 3, 4) and x.shape[3] > 4:
        raise MalformedDataset(
            f"{x} looks like N × C × H × W; uint8 images are N × H × W × C.",
            hint="x.transpose(0, 2, 3, 1)",
        )
    return ImageForm("uint8", (x.shape[1], x.shape[2], x.shape[3]))


def _float_form(x: Member) -> ImageForm:
    if len(x.shape) != 4:
        raise MalformedDataset(
            f"{x} has {len(x.shape)} axes; floats are N × C × H × W.",
            hint="x.reshape(-1, channels, height, width), or uint8 pixels",
        )
    if x.shape[3] in (1, 3, 4) and x.shape[1] > 4:
        raise MalformedDataset(
            f"{x} looks like N × H × W × C; floats are used as they are, N × C × H × W.",
            hint="x.transpose(0, 3, 1, 2), or uint8 pixels",
        )
    return ImageForm("float32", (x.shape[1], x.shape[2], x.shape[3]))


def _sources(file: zipfile.ZipFile, members: Mapping[str, Member]) -> list[Source]:
    if "x_test" in members:
        pairs = [("x_train", "y_train", False), ("x_test", "y_test", True)]
        return [
            Source(members[x], labels, np.full(members[x].shape[0], test))
            for x, y, test in pairs
            for labels in [_labels(file, members.get(y), members[x])]
        ]
    x = members.get("x") or members["x_train"]
    if x.shape[0] < 2:
        raise MalformedDataset(f"{x} holds one image; two are the least.", hint="Send more images.")
    labels = _labels(file, members.get("y") or members.get("y_train"), x)
    return [Source(x, labels, split.choose_test_rows(labels, x.shape[0]))]


def _labels(file: zipfile.ZipFile, y: Member | None, x: Member) -> npt.NDArray[np.int64] | None:
    if y is None:
        return None
    flat = len(y.shape) == 1 or (len(y.shape) == 2 and y.shape[1] == 1)
    if y.dtype.kind not in "iu" or not flat:
        hint = "One-hot labels: y.argmax(axis=1)." if len(y.shape) == 2 else "y.astype('int64')"
        raise MalformedDataset(f"{y} must be whole numbers, one a row: integer, N.", hint=hint)
    if y.shape[0] != x.shape[0]:
        raise MalformedDataset(f"{y} and {x} differ in length.", hint="One label for each image.")
    with refuse_damage(y.name):
        values = np.concatenate([block.reshape(-1) for block in _blocks(file, y, None)])
    if values.min() < 0 or values.max() >= MAX_INDEX:
        raise MalformedDataset(
            f"{y} holds values from {values.min()} to {values.max()}; "
            f"class indices go from 0 to {MAX_INDEX - 1:,}.",
            hint="numpy.unique(labels, return_inverse=True)[1] numbers any labels from 0.",
        )
    return values.astype(np.int64)


def _blocks(file: zipfile.ZipFile, member: Member, scratch: Path | None) -> Iterator[Array]:
    """The rows of a member, some megabytes at a time."""
    rows = max(1, _BLOCK_BYTES // max(member.row_bytes, 1))
    with refuse_damage(member.name), file.open(member.info) as stream:
        _npy_header(stream, member.name)
        if member.fortran and len(member.shape) > 1 and scratch is not None:
            yield from _fortran_blocks(stream, member, rows, scratch)
            return
        for begin in range(0, member.shape[0], rows):
            count = min(rows, member.shape[0] - begin)
            data = _read_exactly(stream, count * member.row_bytes)
            yield np.frombuffer(data, member.dtype).reshape(count, *member.shape[1:])
        if stream.read(1):  # the last read compares the checksum
            raise EOFError("there are more bytes than the header says")


def _fortran_blocks(stream: IO[bytes], member: Member, rows: int, scratch: Path) -> Iterator[Array]:
    """Column-major arrays hold a row's values far apart: they take a turn through a file."""
    spool = scratch / "column_major"
    try:
        with spool.open("wb") as sink:
            while chunk := stream.read(_BLOCK_BYTES):
                sink.write(chunk)
        array = np.memmap(spool, member.dtype, "r", 0, member.shape, "F")
        for begin in range(0, member.shape[0], rows):
            yield np.ascontiguousarray(array[begin : begin + rows])
    finally:
        spool.unlink(missing_ok=True)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    pieces, missing = [], size
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    if missing:
        raise EOFError(f"{missing} bytes are missing")
    return b"".join(pieces)


def _details(
    sources: Sequence[Source], form: ImageForm, *, given: bool, ignored: list[str]
) -> dict[str, Any]:
    labels = [source.labels for source in sources if source.labels is not None]
    height, width, channels = form.image
    return {
        "kind": form.dtype,
        "image": form.image,
        "channels": channels,
        "sizes": {"smallest": [height, width], "largest": [height, width]},
        "classes": int(max(part.max() for part in labels)) + 1 if labels else None,
        "classes_present": len(np.unique(np.concatenate(labels))) if labels else None,
        "class_names": None,
        "split": "given" if given else "stratified_20_percent_seed_0",
        "ignored_files": len(ignored),
        "ignored_examples": [name[:100] for name in ignored[:10]],
    }


def _write(
    writer: CanonicalWriter,
    file: zipfile.ZipFile,
    sources: Sequence[Source],
    form: ImageForm,
    scratch: Path,
    report: Report,
) -> None:
    for part, test in (("train", False), ("test", True)):
        labels = [s.labels[s.in_test == test] for s in sources if s.labels is not None]
        if labels:
            writer.add(f"{part}_y", np.concatenate(labels))
    counts = {test: sum(int((s.in_test == test).sum()) for s in sources) for test in (False, True)}
    regions = {
        test: writer.reserve(f"{'test' if test else 'train'}_x", form.dtype, (counts[test], *form.row_shape))
        for test in (False, True)
    }
    progress = Progress(report, sum(source.x.shape[0] for source in sources))
    for source in sources:
        _copy_rows(file, source, form, regions, scratch, progress)


def _copy_rows(
    file: zipfile.ZipFile,
    source: Source,
    form: ImageForm,
    regions: Mapping[bool, Region],
    scratch: Path,
    progress: Progress,
) -> None:
    begin = 0
    for block in _blocks(file, source.x, scratch):
        rows = block if form.dtype == "uint8" else _finite(block, source.x, begin)
        test = source.in_test[begin : begin + len(rows)]
        regions[False].append(rows[~test])
        regions[True].append(rows[test])
        begin += len(rows)
        progress.add(len(rows))


def _finite(block: Array, x: Member, begin: int) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
        rows = block.astype(np.float32)
    bad = ~np.isfinite(rows).all(axis=(1, 2, 3))
    if bad.any():
        raise MalformedDataset(
            f"{x} holds NaN or values beyond float32, first in image {begin + int(bad.argmax())}.",
            hint="Look at numpy.isfinite(x).all(axis=(1, 2, 3)), and leave those images out or mend them.",
        )
    return rows
