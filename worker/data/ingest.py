"""Inspection of an uploaded data set: runs in the confined child, writes the canonical form."""

from pathlib import Path
from typing import Any

from app.core.errors import UnsupportedFormat
from worker.data import folders, npz
from worker.data.limits import Limits
from worker.data.progress import Report

_READERS = {"npz": npz.ingest, "images": folders.ingest}


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
