"""Names that are unique and that Python and torch accept."""

import re

from torch import fx

_SHOWN = 100  # letters of a stranger's word in a sentence of ours
_TAKEN = frozenset(dir(fx.GraphModule))  # `graph`, `code`, `train` …: a submodule may not hide them


class Names:
    """Hands out each name once; a repeated one gets _1, _2 …"""

    def __init__(self, taken: set[str] | None = None) -> None:
        self._taken = set(taken or ())

    def unique(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def quoted(word: object, most: int = _SHOWN) -> str:
    """A stranger's word as it may stand in a sentence: in quotes, without control characters, and short."""
    return shortened(repr(word), most)


def shortened(text: str, most: int = _SHOWN) -> str:
    """Its beginning and its end, where a text is long."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def attribute(name: str) -> str:
    """A name as one attribute of a module: letters, digits and _, none that torch itself uses."""
    safe = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    return f"module_{safe}" if safe[0].isdigit() or safe in _TAKEN else safe


def module_path(path: str) -> str:
    """A dotted module path whose first part does not hide an attribute of the graph module."""
    head, dot, rest = path.partition(".")
    return f"module_{head}{dot}{rest}" if head in _TAKEN else path
