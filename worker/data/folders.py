"""Listed images, to a canonical data set; and the list that the class folders of an archive make."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.errors import MalformedDataset, ResourceLimit
from worker.data import decode, layout, split
from worker.data.archive import Archive, Entry
from worker.data.canonical import CanonicalWriter
from worker.data.limits import Limits
from worker.data.packed import pack
from worker.data.pool import in_order
from worker.data.progress import Progress, Report

# Weights of the two passes in the progress: reading headers takes a fifth of the time.
_LOOK: Final = 1
_DECODE: Final = 4


@dataclass(frozen=True)
class Listing:
    """The images of an archive in the order of their names, with labels and part."""

    images: list[Entry]
    labels: npt.NDArray[np.int64] | None
    class_names: list[str | None] | None
    in_test: npt.NDArray[np.bool_]
    split_given: bool
    ignored: list[str]
    columns: dict[str, Any] | None = None  # of a table: which were read


@dataclass(frozen=True)
class Form:
    """What all images share: their channels, and their size if there is one."""

    channels: int
    smallest: list[int]  # least height and least width
    largest: list[int]

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.largest[0], self.largest[1]) if self.smallest == self.largest else None


def ingest(
    archive: Archive, target: Path, classes: Mapping[str, Any] | None, limits: Limits, report: Report
) -> dict[str, Any]:
    """Write the archive's images as the canonical file `target`, and say what it holds."""
    return store(archive, list_images(archive.entries, classes, limits), target, limits, report)


def store(archive: Archive, listing: Listing, target: Path, limits: Limits, report: Report) -> dict[str, Any]:
    """Decode what is listed into the canonical file `target`, and say what it holds."""
    progress = Progress(report, len(listing.images) * (_LOOK + _DECODE))
    form = _look(archive, listing.images, limits, progress)
    details = _details(listing, form)
    with CanonicalWriter(target, details, limit_bytes=limits.unpacked_bytes) as writer:
        _write_labels(writer, listing)
        _write_images(writer, archive, listing, form, limits, progress)
    test = int(listing.in_test.sum())
    return {
        "examples": {"train": len(listing.images) - test, "test": test},
        "classes": details["classes"],
        "image": details["image"],
        "labelled": listing.labels is not None,
        "details": details,
    }


def list_images(entries: Sequence[Entry], classes: Mapping[str, Any] | None, limits: Limits) -> Listing:
    """What the names alone tell."""
    images = [entry for entry in entries if layout.is_image(entry.name)]
    ignored = [entry.name for entry in entries if not layout.is_image(entry.name)]
    _check_images(images, ignored, limits)
    places = layout.arrange([image.name for image in images], classes)
    labels, names = _label(places, classes)
    parts = {place.part for place in places}
    given = parts == {"train", "test"}
    if given:
        in_test = np.array([place.part == "test" for place in places])
    else:
        in_test = split.choose_test_rows(labels, len(images))
    return Listing(images, labels, names, in_test, given, ignored)


def _check_images(images: Sequence[Entry], ignored: Sequence[str], limits: Limits) -> None:
    if len(images) < 2:
        found = f"; it also holds {len(ignored)} other files, such as {ignored[0][:100]}" if ignored else ""
        raise MalformedDataset(
            f"The archive holds {len(images)} image files{found}. Two are the least.",
            hint="Image names end in .jpg, .jpeg, .png, .webp, .bmp, .gif, .tif or .ppm.",
        )
    limits.check_images(len(images))
    for image in images:
        check_size(image.name, image.size, limits)


def check_size(name: str, size: int, limits: Limits) -> None:
    """Refuse an image whose file is longer than any image's needs to be."""
    if size > limits.image_file_bytes:
        raise ResourceLimit(
            f"{name[:200]} has {size:,} bytes; the limit for one image is {limits.image_file_bytes:,}.",
            hint="Make it smaller; networks look at far fewer pixels.",
            limit=limits.image_file_bytes,
        )


def _label(
    places: Sequence[layout.Place], classes: Mapping[str, Any] | None
) -> tuple[npt.NDArray[np.int64] | None, list[str | None] | None]:
    folders = {place.folder for place in places if place.folder is not None}
    if not folders and classes is None:
        return None, None
    indices = layout.class_indices(folders, classes)
    names: list[str | None] = [None] * (max(indices.values()) + 1)
    for folder, index in indices.items():
        names[index] = folder
    return np.array([indices[place.folder or ""] for place in places], np.int64), names


def _look(archive: Archive, images: Sequence[Entry], limits: Limits, progress: Progress) -> Form:
    """First pass: every header, so that a broken file is named before hours of decoding."""
    heights, widths, grey = [], [], True
    for header in in_order(_reader(limits), _contents(archive, images)):
        heights.append(header.height)
        widths.append(header.width)
        grey = grey and header.grey
        progress.add(_LOOK)
    return Form(1 if grey else 3, [min(heights), min(widths)], [max(heights), max(widths)])


def _reader(limits: Limits) -> Callable[[tuple[str, bytes]], decode.Header]:
    return lambda item: decode.read_header(item[1], item[0], limits)


def _contents(archive: Archive, images: Sequence[Entry]) -> Iterator[tuple[str, bytes]]:
    return ((image.name, archive.read(image)) for image in images)


def _details(listing: Listing, form: Form) -> dict[str, Any]:
    names, labels = listing.class_names, listing.labels
    return {
        "kind": "encoded" if form.size is None else "uint8",
        "image": None if form.size is None else [*form.size, form.channels],
        "channels": form.channels,
        "sizes": {"smallest": form.smallest, "largest": form.largest},
        "classes": None if labels is None else int(labels.max()) + 1 if names is None else len(names),
        "classes_present": None if labels is None else len(np.unique(labels)),
        "class_names": names,
        "split": "given" if listing.split_given else "stratified_20_percent_seed_0",
        "ignored_files": len(listing.ignored),
        "ignored_examples": listing.ignored[:10],
        **({} if listing.columns is None else {"columns": listing.columns}),
    }


def _write_labels(writer: CanonicalWriter, listing: Listing) -> None:
    if listing.labels is not None:
        writer.add("train_y", listing.labels[~listing.in_test])
        writer.add("test_y", listing.labels[listing.in_test])


def _write_images(
    writer: CanonicalWriter,
    archive: Archive,
    listing: Listing,
    form: Form,
    limits: Limits,
    progress: Progress,
) -> None:
    parts = {
        "train": [image for image, test in zip(listing.images, listing.in_test, strict=True) if not test],
        "test": [image for image, test in zip(listing.images, listing.in_test, strict=True) if test],
    }
    if form.size is not None:
        _check_room(len(listing.images), form, limits, writer.path)
        for part, images in parts.items():
            region = writer.reserve(f"{part}_x", "uint8", (len(images), *form.size, form.channels))
            for pixels in _decoded(archive, images, form, limits):
                region.append(pixels)
                progress.add(_DECODE)
        return
    regions = {
        part: writer.reserve(f"{part}_offsets", "int64", (len(images) + 1,)) for part, images in parts.items()
    }
    for part, images in parts.items():
        regions[part].append(np.zeros(1, np.int64))
        for data in _encoded(archive, images, form, limits):
            end = writer.append_blob(f"{part}_blob", data)
            regions[part].append(np.array([end], np.int64))
            progress.add(_DECODE)


def _decoded(
    archive: Archive, images: Sequence[Entry], form: Form, limits: Limits
) -> Iterator[decode.Pixels]:
    return in_order(
        lambda item: decode.decode(item[1], item[0], limits, form.channels), _contents(archive, images)
    )


def _encoded(archive: Archive, images: Sequence[Entry], form: Form, limits: Limits) -> Iterator[bytes]:
    def encode(item: tuple[str, bytes]) -> bytes:
        return pack(decode.decode(item[1], item[0], limits, form.channels))

    return in_order(encode, _contents(archive, images))


def _check_room(count: int, form: Form, limits: Limits, target: Path) -> None:
    """Raw images of one size: their room is known beforehand, so a full disk is no surprise."""
    height, width = form.size or (0, 0)
    needed = count * height * width * form.channels
    free = shutil.disk_usage(target.parent).free
    if needed > min(free, limits.unpacked_bytes):
        raise ResourceLimit(
            f"{count:,} decoded images of {width} × {height} × {form.channels} take {needed:,} bytes; "
            f"there is room for {min(free, limits.unpacked_bytes):,}.",
            hint="Send fewer images, or smaller ones.",
            limit=min(free, limits.unpacked_bytes),
        )
