"""What the folders of an image archive say: the part (train or test) and the class of every image. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from app.core.errors import MalformedDataset

Part = Literal["train", "test"]
PARTS: Final[dict[str, Part]] = {
    "train": "train",
    "training": "train",
    "val": "test",
    "valid": "test",
    "validation": "test",
    "test": "test",
    "testing": "test",
}
_JPEG: Final = {".jpg", ".jpeg", ".jpe", ".jfif"}
_PLAIN: Final = {".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"}
SUFFIXES: Final = _JPEG | _PLAIN | {".png", ".webp", ".gif", ".tif", ".tiff"}
MAX_INDEX: Final = 1_000_000  # classes; the largest public label sets have below 30,000


@dataclass(frozen=True)
class Place:
    """Where an image belongs; None: the folders don't say."""

    part: Part | None
    folder: str | None


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_parquet(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() == ".parquet"


def are_tables(names: Sequence[str]) -> bool:
    """Whether an archive of these files is one of Parquet: it has some, and no two images beside them."""
    return any(map(is_parquet, names)) and sum(map(is_image, names)) < 2


def arrange(names: Sequence[str], classes: Mapping[str, Any] | None) -> list[Place]:
    """The part and class folder of every image name. One common top folder is passed over."""
    paths = [tuple(name.split("/")) for name in names]
    known = set(classes or ())
    while _has_idle_top(paths, known):
        paths = [path[1:] for path in paths]
    split = _is_split(paths, known)
    places: list[Place] = []
    for path in paths:
        part = PARTS[path[0].lower()] if split else None
        rest = path[1:] if split else path
        places.append(Place(part, rest[0] if len(rest) > 1 else None))
    _refuse_mixture(names, places)
    return places


def _has_idle_top(paths: Sequence[tuple[str, ...]], known: set[str]) -> bool:
    tops = {path[0] for path in paths}
    if len(tops) != 1 or any(len(path) < 2 for path in paths):
        return False
    (top,) = tops
    return top not in known and top.lower() not in PARTS


def _is_split(paths: Sequence[tuple[str, ...]], known: set[str]) -> bool:
    """Whether the top folders are parts. A class may be called `train`, beside `bus` and `plane`."""
    tops = {path[0] for path in paths if len(path) > 1}
    everywhere = all(len(path) > 1 for path in paths)
    return everywhere and not tops & known and all(top.lower() in PARTS for top in tops)


def _refuse_mixture(names: Sequence[str], places: Sequence[Place]) -> None:
    loose = next((name for name, place in zip(names, places, strict=True) if place.folder is None), None)
    inside = next((name for name, place in zip(names, places, strict=True) if place.folder), None)
    if loose is not None and inside is not None:
        raise MalformedDataset(
            f"{loose} lies in no class folder, {inside} in one.",
            hint="Put every image into a class folder (class/image, also under train/, val/ or test/), "
            "or none for a data set without labels.",
        )


def part_of_file(name: str) -> Part | None:
    """The part of all that a file holds: ``train-00000-of-00002.parquet``, ``test/0000.parquet``."""
    *folders, last = name.lower().split("/")
    words = [*folders, re.split(r"[^a-z]", last, maxsplit=1)[0]]
    return next((PARTS[word] for word in reversed(words) if word in PARTS), None)


def class_indices(
    folders: set[str], classes: Mapping[str, Any] | None, found: str = "class folder"
) -> dict[str, int]:
    """The index of every class folder: the user's own, or their sorted order. `found`: what names them."""
    if classes is None:
        return {folder: index for index, folder in enumerate(sorted(folders))}
    _refuse_unknown(folders, set(classes), found)
    by_index: dict[int, str] = {}
    for folder, index in classes.items():
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < MAX_INDEX:
            raise MalformedDataset(
                f"classes gives {folder!r} the index {index!r}; indices are whole numbers from 0.",
                hint='Send classes as {"folder name": index}, or leave it out.',
            )
        if index in by_index:
            raise MalformedDataset(
                f"classes gives the index {index} to both {by_index[index]!r} and {folder!r}.",
                hint="Give every folder an index of its own.",
            )
        by_index[index] = folder
    return dict(classes)


def _refuse_unknown(folders: set[str], named: set[str], found: str) -> None:
    if missing := sorted(folders - named):
        raise MalformedDataset(
            f"classes gives no index to {_some(missing)}.", hint=f"It names {_some(sorted(named))}."
        )
    if unknown := sorted(named - folders):
        raise MalformedDataset(
            f"classes names {_some(unknown)}, and the data set has no such {found}.",
            hint=f"Its {found}s are {_some(sorted(folders)) or 'none'}.",
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
