"""The long run's answers as a table that can be read aloud: file, answer, seconds."""

import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import describe
from tests.hostile.canary import Answer
from tests.hostile.corpus import READY

HEAD = (
    "| file | bytes | answer | seconds | CPU s | peak MB | sentence |",
    "|---|---:|---|---:|---:|---:|---|",
)
LONGEST = 300  # letters of a sentence in the table; the JSON file has all of it


def write_table(answers: Sequence[Answer], of: int, folder: Path) -> None:
    """hostile.json with everything, hostile.md to read. `of`: how many files the corpus has."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(answer) for answer in sorted(answers, key=lambda answer: answer.case.group)]
    load = os.getloadavg()[2]  # of the last 15 minutes
    document = {"machine": describe("cpu"), "load": round(load, 1), "corpus": of, "cases": rows}
    (folder / "hostile.json").write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")
    (folder / "hostile.md").write_text(_page(rows, of, document["machine"], load))


def _row(answer: Answer) -> dict[str, object]:
    return {
        "group": answer.case.group,
        "name": answer.case.name,
        "to": answer.case.to,
        "bytes": answer.size,
        "status": answer.status,
        "code": answer.code,
        "detail": answer.detail,
        "hint": answer.hint,
        "seconds": round(answer.seconds, 2),
        "cpu_seconds": round(answer.cpu_seconds, 2) or None,
        "peak_mb": round(answer.peak_bytes / 1e6) or None,
        "ran": answer.ran,
        "as_wanted": answer.is_as_wanted,
    }


def _page(rows: list[dict[str, object]], of: int, machine: object, load: float) -> str:
    seconds = sorted(float(str(row["seconds"])) for row in rows)
    refused = sum(row["code"] != READY for row in rows)
    slow = sum(value > 10 for value in seconds)
    unwanted = sum(not row["as_wanted"] for row in rows)
    ran = sum(bool(row["ran"]) for row in rows)
    cpu = max(float(str(row["cpu_seconds"] or 0)) for row in rows)
    peak = max(int(str(row["peak_mb"] or 0)) for row in rows)
    about = (
        "Written by `make test-hostile`: every file of `tests/hostile/corpus` sent over HTTP to the whole "
        "service, inspected by its worker in the sandbox, one after the other. A status from 400 on is the "
        "answer to the upload itself; 201 with a code is a model or data set that the inspector then "
        "rejected; `ready` is a file whose harmful part is thrown away unread, or that is odd but honest."
    )
    figures = (
        f"{len(rows)} of the corpus's {of} files, {refused} refused, {unwanted} answered "
        f"otherwise than was wanted, {ran} ran what they carry. "
        f"Half were answered in less than {seconds[len(seconds) // 2]:.1f} s, the "
        f"longest in {seconds[-1]:.1f} s, {slow} in more than 10 s. CPU s and peak MB are of the child that "
        f"read the file, seen every 20 ms: at most {cpu:.1f} s and {peak:,} MB, half of "
        f"them below {_usual(rows):,} MB. The load was {load:.1f} on "
        f"{len(os.sched_getaffinity(0))} cores. Machine: {_machine(machine)}."
    )
    lines = ["# What hostile uploads are answered", "", about, "", figures]
    for group in dict.fromkeys(str(row["group"]) for row in rows):
        lines += ["", f"## {group.capitalize()}", "", *HEAD]
        lines += [_line(row) for row in rows if row["group"] == group]
    return "\n".join(lines) + "\n"


def _usual(rows: list[dict[str, object]]) -> int:
    """The median of those that were read at all."""
    peaks = sorted(int(str(row["peak_mb"])) for row in rows if row["peak_mb"])
    return peaks[len(peaks) // 2] if peaks else 0


def _line(row: dict[str, object]) -> str:
    sentence = f"{row['detail']} {row['hint']}".strip()
    cells = (
        row["name"],
        f"{row['bytes']:,}",
        f"{row['status']} `{row['code']}`",
        row["seconds"],
        row["cpu_seconds"] or "",
        row["peak_mb"] or "",
        _short(sentence),
    )
    return "| " + " | ".join(_plain(str(cell)) for cell in cells) + " |"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …"


def _plain(text: str) -> str:
    """Text that neither breaks a table nor a terminal."""
    safe = "".join(
        c if unicodedata.category(c)[0] not in "CZ" or c == " " else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return safe.replace("|", "\\|").replace("<", "&lt;")


def _machine(machine: object) -> str:
    about = machine if isinstance(machine, dict) else {}
    packages = about.get("packages", {})
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return f"{about.get('processor')}, Python {about.get('python')}, {versions}"
