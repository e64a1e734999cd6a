"""The raw file of a run: every row as it was measured, with what it was measured on. Tables and plots are
made from it, never the other way round.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Key:
    """What a row is about. `cut`: the share of MACs that was to go; 0 for the network as it came."""

    network: str
    method: str
    cut: float
    seed: int
    tuned: bool


@dataclass(frozen=True)
class Row:
    """`values`: the figures, JSON-able; `code`: sources.row_code() when it was measured."""

    key: Key
    code: str
    values: Mapping[str, Any]


class RawFile:
    """Written anew, whole and in one step, after every row: a run that stops loses nothing.

    Rows that another run has written to the same file meanwhile stay, when both go on with it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path, self._about = path, dict(about)
        self._rows: dict[Key, Row] = {}
        self._shared = False

    @classmethod
    def resumed(cls, path: Path, about: Mapping[str, Any]) -> "RawFile":
        """Keeps the rows that are there already, also those of other code."""
        raw = cls(path, about)
        raw._shared = True
        raw._catch_up()
        return raw

    def _catch_up(self) -> None:
        if self._shared and self._path.exists():
            self._rows |= {row.key: row for row in read(self._path)}

    def has(self, key: Key, code: str) -> bool:
        """Whether this very row was measured by this very code."""
        return key in self._rows and self._rows[key].code == code

    def add(self, row: Row) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._path.parent):
            self._catch_up()
            self._rows[row.key] = row
            self._write()

    def _write(self) -> None:
        found = [{**asdict(row.key), "code": row.code, **row.values} for row in self._rows.values()]
        text = json.dumps({**self._about, "rows": found}, indent=1) + "\n"
        part = self._path.with_suffix(".part")
        part.write_text(text)
        part.replace(self._path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the file itself is replaced by each, so its folder is what is held."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def read(path: Path) -> list[Row]:
    rows = []
    for entry in json.loads(path.read_text())["rows"]:
        key = Key(**{name: entry.pop(name) for name in Key.__annotations__})
        rows.append(Row(key, entry.pop("code"), entry))
    return rows


def about(path: Path) -> dict[str, Any]:
    """What the rows were measured on."""
    found: dict[str, Any] = json.loads(path.read_text())
    found.pop("rows")
    return found
