"""A measured network as a JSON document: small, and read without torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from basisconv.choice import Numbers, Option
from basisconv.layers import Layer
from basisconv.outlook import Outlook

FORMAT: Final = 1  # raised when the document or what it means changes: older ones are then measured again


@dataclass(frozen=True)
class Known:
    """Numbers by public layer names, what errors would do to the answers, and what is to be said of it."""

    numbers: Numbers
    outlook: Outlook | None
    warnings: list[dict[str, str]]


def write(path: Path, known: Known) -> None:
    numbers = known.numbers
    document = {
        "format": FORMAT,
        "layers": [asdict(layer) for layer in numbers.layers],
        "macs": numbers.macs,
        "params": numbers.params,
        "tables": {name: _columns(table) for name, table in numbers.tables.items()},
        "energies": {name: list(values) for name, values in numbers.energies.items()},
        "measured": numbers.measured,
        "outlook": None if known.outlook is None else asdict(known.outlook),
        "warnings": known.warnings,
    }
    path.write_text(json.dumps(document, allow_nan=False))


def read(path: Path) -> Known:
    """Raises ValueError, KeyError or TypeError where the file is of another form."""
    document = json.loads(path.read_text())
    if document["format"] != FORMAT:
        raise ValueError(f"measurement of format {document['format']}, not {FORMAT}")
    outlook = document["outlook"]
    numbers = Numbers(
        layers=[_layer(row) for row in document["layers"]],
        macs=document["macs"],
        params=document["params"],
        tables={name: _options(columns) for name, columns in document["tables"].items()},
        energies=document["energies"],
        measured=document["measured"],
    )
    return Known(numbers, None if outlook is None else Outlook(**outlook), document["warnings"])


def _columns(table: Any) -> dict[str, list[Any]]:
    """Field by field: a third of the size of option by option."""
    names = [one.name for one in fields(Option) if one.name != "ns"]
    return {name: [getattr(option, name) for option in table] for name in names}


def _options(columns: Mapping[str, list[Any]]) -> list[Option]:
    return [
        Option(form, rank, macs, params, harm)
        for form, rank, macs, params, harm in zip(
            columns["form"],
            columns["rank"],
            columns["macs"],
            columns["params"],
            columns["harm"],
            strict=True,
        )
    ]


def _layer(row: dict[str, Any]) -> Layer:
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in row.items()}
    return Layer(**values)
