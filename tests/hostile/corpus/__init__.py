"""Files made to harm, each by a function, and what the service has to answer to each.

Nothing here is stored: a case is made when it is sent. A case that may be taken (a harmful part that we throw
away unread, an odd but honest file) says `ready`; every other has to end in one of its codes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

READY: Final = "ready"


@dataclass(frozen=True)
class Traps:
    """What a payload touches when it runs: a file, and a server that counts its callers."""

    file: Path
    port: int

    @property
    def code(self) -> str:
        """Python source that springs both."""
        return (
            f"import pathlib, socket; pathlib.Path({str(self.file)!r}).touch(); "
            f"socket.create_connection(('127.0.0.1', {self.port}), 2)"
        )

    @property
    def expression(self) -> str:
        """The same as one expression, for whatever is evaluated."""
        return f"exec({self.code!r})"


@dataclass(frozen=True)
class Hostile:
    """One file of the corpus, or one raw request."""

    name: str
    group: str
    to: Literal["models", "datasets"]
    filename: str
    make: Callable[[Traps], bytes]
    codes: frozenset[str]
    fields: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None  # set: `make` gives the whole body of the request

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


_CASES: list[Hostile] = []


def add(
    group: str,
    name: str,
    make: Callable[[Traps], bytes],
    codes: str | Iterable[str],
    *,
    to: Literal["models", "datasets"] = "models",
    filename: str = "model.onnx",
    fields: dict[str, str] | None = None,
    content_type: str | None = None,
) -> None:
    """Put a case into the corpus. `codes`: names separated by blanks; one of them must be the answer."""
    wanted = frozenset(codes.split() if isinstance(codes, str) else codes)
    _CASES.append(Hostile(name, group, to, filename, make, wanted, fields or {}, content_type))


def cases() -> list[Hostile]:
    """The whole corpus, group by group."""
    from tests.hostile.corpus import (  # noqa: F401 - each fills the list
        archives,
        arrays,
        images,
        names,
        onnx_bombs,
        onnx_files,
        onnx_graphs,
        onnx_words,
        other_formats,
        pickles,
        pt2_bombs,
        pt2_files,
        requests,
        tables,
    )

    known = [str(case) for case in _CASES]
    assert len(set(known)) == len(known), "two cases of one name"
    return sorted(_CASES, key=lambda case: case.group)
