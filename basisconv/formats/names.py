"""Names that are unique and that Python and torch accept."""

import re

from torch import fx

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


def attribute(name: str) -> str:
    """A name as one attribute of a module: letters, digits and _, none that torch itself uses."""
    safe = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    return f"module_{safe}" if safe[0].isdigit() or safe in _TAKEN else safe


def module_path(path: str) -> str:
    """A dotted module path whose first part does not hide an attribute of the graph module."""
    head, dot, rest = path.partition(".")
    return f"module_{head}{dot}{rest}" if head in _TAKEN else path
