"""Names that torch's modules can have as attributes."""

import re

from torch import fx

_TAKEN = frozenset(dir(fx.GraphModule))  # `graph`, `code`, `train` …: a submodule may not hide them


def attribute(name: str) -> str:
    """A name as one attribute of a module: letters, digits and _, none that torch itself uses."""
    safe = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    return f"module_{safe}" if safe[0].isdigit() or safe in _TAKEN else safe


def module_path(path: str) -> str:
    """A dotted module path whose first part does not hide an attribute of the graph module."""
    head, dot, rest = path.partition(".")
    return f"module_{head}{dot}{rest}" if head in _TAKEN else path
