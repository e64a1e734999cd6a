"""What can be refused before torch is imported, which takes seconds of a processor that others want.

`worker.inspection` goes on with what was parsed here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from onnx import ModelProto

from app.core.errors import UnsupportedFormat
from app.models.sniff import HEAD_BYTES, Format, sniff
from basisconv.errors import MethodError
from basisconv.formats import onnx_checks, pt2_archive
from basisconv.formats.pt2_archive import Archive
from worker.problems import as_problem

Report = Callable[[dict[str, Any]], None]
READING: Final = {"type": "progress", "fraction": 0.1, "message": "Reading the network"}


@dataclass
class Parsed:
    """What a file is, and what is in it, as far as that can be told without torch."""

    format: Format
    _content: ModelProto | Archive | None  # of an ONNX file, of a .pt2, of anything else

    def take(self) -> ModelProto | Archive | None:
        """The content, which is as large as the file: nobody keeps it beside who takes it."""
        content, self._content = self._content, None
        return content


def inspect_model(task: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """Handle an ``inspect_model`` task: see the network's own file, never believe its name.

    Raises Problem: what the file is, or what in it cannot be taken, and where.
    """
    source = folder / task["file"]
    found = _format(source, task["format"])
    report(READING)
    try:
        parsed = Parsed(found, _content(source, found))
        from worker import inspection

        return inspection.inspect(task, folder, report, parsed)
    except MethodError as error:
        raise as_problem(error, task) from error


def _format(source: Path, said: str) -> Format:
    with source.open("rb") as file:
        found = sniff(file.read(HEAD_BYTES), "")
    if said in get_args(Format) and found != said:
        raise UnsupportedFormat(f"The file was taken for {said}, but is {found}.")
    return found


def _content(source: Path, found: Format) -> ModelProto | Archive | None:
    if found == "onnx":
        return onnx_checks.parse(source.read_bytes())
    if found == "pt2":
        with source.open("rb") as file:
            return pt2_archive.read(file)
    return None
