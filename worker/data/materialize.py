"""The canonical data set as the images one network takes: decoded once, kept compact, mapped when large."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.errors import DatasetMismatch
from worker.data.canonical import Array, Canonical, CanonicalWriter, read_canonical
from worker.data.decode import Pixels
from worker.data.packed import unpack
from worker.data.pool import in_order
from worker.data.resize import fit, needs_work
from worker.data.spec import InputSpec

MAP_BYTES: Final = 200_000_000  # larger tensors stay on disk behind a memory map
PARTS: Final = ("train", "test")
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Both parts at the network's size: uint8 N×H×W×C, or float32 N×C×H×W used as it is."""

    train_x: Array
    train_y: Labels | None
    test_x: Array
    test_y: Labels | None
    float_input: bool
    classes: int | None  # the largest label and one
    class_names: list[str | None] | None
    warnings: tuple[dict[str, str], ...]  # what had to be converted, as a job's warnings


def materialize(path: Path, spec: Mapping[str, Any], cache: Path | None) -> Images:
    """Images for the network whose api.md ``input`` is `spec`.

    Images of other size or channels are converted once, into `cache` (a file of the same canonical form,
    written whole or not at all, rebuilt when it does not fit), or without one into a passing file beside
    `path`. Raises DatasetMismatch with the numbers when the channels or float shapes don't fit.
    """
    source, wanted = read_canonical(path), InputSpec.parse(spec)
    about = source.metadata
    warnings = _check(about, wanted)
    if about["kind"] == "float32" or not needs_work(about["image"], wanted):
        return _images(source, source, warnings)
    sized = _cached(cache, _key(source, wanted)) or _convert(source, wanted, path, cache)
    return _images(source, sized, warnings)


def check_classes(classes: int | None, outputs: Sequence[int]) -> None:
    """Refuse labels that a network's outputs can't name; a network without a class axis is no classifier."""
    if classes is not None and len(outputs) == 1 and classes > outputs[0]:
        raise DatasetMismatch(
            f"The data set has {classes} classes; the network has {outputs[0]} outputs.",
            hint="Class indices must lie below the number of outputs; `classes` maps folders to indices.",
        )


def _check(about: Mapping[str, Any], wanted: InputSpec) -> tuple[dict[str, str], ...]:
    channels = about["channels"]
    takes = f"the network takes {wanted.channels} × {wanted.height} × {wanted.width}"
    if about["kind"] == "float32":
        height, width, _ = about["image"]
        if (channels, height, width) != (wanted.channels, wanted.height, wanted.width):
            raise DatasetMismatch(
                f"The data set holds float images of {channels} × {height} × {width}; {takes}.",
                hint="Floats are used as they are; uint8 pixels would be converted.",
            )
        return ()
    if channels == wanted.channels:
        return ()
    if (channels, wanted.channels) == (3, 1):
        return (_converted("The RGB images were turned into luminance for a network of 1 channel."),)
    if (channels, wanted.channels) == (1, 3):
        return (_converted("The grey images were repeated for a network of 3 channels."),)
    raise DatasetMismatch(f"The data set's images have {channels} channels; {takes}.")


def _converted(detail: str) -> dict[str, str]:
    return {"code": "channels_converted", "detail": detail}


def _images(source: Canonical, sized: Canonical, warnings: tuple[dict[str, str], ...]) -> Images:
    labels = {part: source.tensors.get(f"{part}_y") for part in PARTS}
    x = {part: _settled(sized.tensors[f"{part}_x"]) for part in PARTS}
    return Images(
        x["train"],
        None if labels["train"] is None else np.array(labels["train"]),
        x["test"],
        None if labels["test"] is None else np.array(labels["test"]),
        source.metadata["kind"] == "float32",
        source.metadata["classes"],
        source.metadata["class_names"],
        warnings,
    )


def _settled(array: Array) -> Array:
    return np.array(array) if array.nbytes <= MAP_BYTES else array


def _key(source: Canonical, wanted: InputSpec) -> dict[str, Any]:
    return {"geometry": wanted.geometry, "source": source.metadata, "counts": _counts(source)}


def _counts(source: Canonical) -> dict[str, int]:
    encoded = source.metadata["kind"] == "encoded"
    rows = {part: len(source.tensors[f"{part}_{'offsets' if encoded else 'x'}"]) for part in PARTS}
    return {part: count - encoded for part, count in rows.items()}


def _cached(cache: Path | None, key: Mapping[str, Any]) -> Canonical | None:
    """The cache, if it was made for this; a torn or foreign one is as good as none."""
    if cache is None or not cache.exists():
        return None
    with suppress(ValueError, KeyError, TypeError, OSError):
        found = read_canonical(cache)
        if found.metadata == key:
            return found
    return None


def _convert(source: Canonical, wanted: InputSpec, path: Path, cache: Path | None) -> Canonical:
    target = cache or path.with_name(path.name + ".sized")
    part_file = target.with_name(f"{target.name}.part-{os.getpid()}")
    row = (wanted.height, wanted.width, wanted.channels)
    try:
        with CanonicalWriter(part_file, _key(source, wanted)) as writer:
            for part, count in _counts(source).items():
                region = writer.reserve(f"{part}_x", "uint8", (count, *row))
                for pixels in _fitted(source, part, wanted):
                    region.append(pixels)
        part_file.replace(target)
    finally:
        part_file.unlink(missing_ok=True)
    sized = read_canonical(target)
    if cache is None:
        target.unlink()  # its maps keep the bytes until the last one goes
    return sized


def _fitted(source: Canonical, part: str, wanted: InputSpec) -> Iterator[Pixels]:
    if source.metadata["kind"] == "encoded":
        return in_order(lambda data: fit(unpack(data), wanted), _pieces(source, part))
    rows: Iterable[Pixels] = source.tensors[f"{part}_x"]
    return in_order(lambda pixels: fit(pixels, wanted), rows)


def _pieces(source: Canonical, part: str) -> Iterator[bytes]:
    blob, offsets = source.tensors[f"{part}_blob"], source.tensors[f"{part}_offsets"]
    for begin, end in pairwise(offsets):
        yield blob[begin:end].tobytes()
