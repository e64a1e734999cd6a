"""Inspection of an uploaded data set: runs in the confined child, writes the canonical form."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from app.core.errors import UnsupportedFormat
from worker.data import folders, layout, npz
from worker.data.archive import open_archive
from worker.data.limits import Limits
from worker.data.progress import Report

_PARQUET: Final = b"PAR1"
Reader = Callable[[Path, Path, Mapping[str, Any] | None, Limits, Report], dict[str, Any]]


def inspect_dataset(task: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """Turn the upload into one canonical file in `folder` and say what it holds.

    Raises MalformedDataset, UnsafeSerialization or ResourceLimit, each naming the member and the numbers.
    """
    reader = _READERS.get(task["format"])
    if reader is None:
        raise UnsupportedFormat(
            f"Data sets of the format {task['format']!r} are not read; {', '.join(_READERS)} are."
        )
    upload, target = folder / task["file"], folder / task["canonical"]
    result = reader(upload, target, task.get("classes"), Limits.of(task), report)
    return {"canonical": task["canonical"], **result}


def _archive_or_table(
    upload: Path, target: Path, classes: Mapping[str, Any] | None, limits: Limits, report: Report
) -> dict[str, Any]:
    """Told by the content: the first bytes of an archive do not say what all of it holds."""
    with upload.open("rb") as file:
        single = file.read(len(_PARQUET)) == _PARQUET
    if single:
        from worker.data import parquet  # here: its library takes time and memory that others need not give

        return parquet.ingest_file(upload, target, classes, limits, report)
    with open_archive(upload, target.parent, limits) as archive:
        if not layout.are_tables([entry.name for entry in archive.entries]):
            return folders.ingest(archive, target, classes, limits, report)
        from worker.data import parquet

        return parquet.ingest_archive(archive, target, classes, limits, report)


_READERS: Final[Mapping[str, Reader]] = {
    "npz": npz.ingest,
    "images": _archive_or_table,
    "parquet": _archive_or_table,
}
