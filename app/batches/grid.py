"""A grid as the jobs that it stands for: every network with every combination of the values."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from app.core.problems import invalid

Path = tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One place in the job's body, and what to try there."""

    path: Path
    values: Sequence[Any]


def axes(grid: Mapping[str, Any]) -> list[Axis]:
    """`{"compression.target.macs": [0.3, 0.5]}` or the same nested. Raises ValidationFailed."""
    found = list(_axes(grid, ()))
    for one, other in ((one, other) for one in found for other in found if one is not other):
        if other.path[: len(one.path)] == one.path:
            name = ".".join(one.path)
            raise invalid(("grid",), f"The grid varies `{name}`, and a part of it or the same again.")
    return found


def _axes(grid: Mapping[str, Any], above: Path) -> Iterator[Axis]:
    for key, values in grid.items():
        path = (*above, *key.split("."))
        if isinstance(values, dict):
            yield from _axes(values, path)
        elif isinstance(values, list) and values:
            yield Axis(path, values)
        else:
            raise invalid(
                ("grid", *above, key),
                f"`{'.'.join(path)}` needs a list with at least one value.",
                hint='Such as {"compression.target.macs": [0.3, 0.5, 0.7]}.',
            )


def size(models: Sequence[str], found: Sequence[Axis]) -> int:
    """How many jobs it stands for."""
    return len(models) * math.prod(len(axis.values) for axis in found)


def bodies(
    models: Sequence[str], found: Sequence[Axis], base: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], str]]:
    """The jobs, network by network, the last axis changing fastest; each with its combination in words."""
    for model, *values in product(models, *(axis.values for axis in found)):
        body = copy.deepcopy(dict(base)) | {"model": model}
        words = [f"model {model}"]
        for axis, value in zip(found, values, strict=True):
            _set(body, axis.path, copy.deepcopy(value))
            words.append(f"{'.'.join(axis.path)} {value!r}"[:100])
        yield body, ", ".join(words)


def _set(body: dict[str, Any], path: Path, value: Any) -> None:
    *above, last = path
    for key in above:
        inner = body.get(key)
        if not isinstance(inner, dict):  # what is no object cannot hold it; the body's own check says so
            inner = body[key] = {}
        body = inner
    body[last] = value
