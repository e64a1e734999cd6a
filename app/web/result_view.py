"""What a job measured, as its page and its report show it: facts, the table of before and after, layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.jobs.checks import most_rank
from app.web import figures, wording
from app.web.formatting import (
    count,
    decibels,
    lost_points,
    milliseconds,
    percent,
    points,
    ratio,
    size,
    times,
    whole,
)

Document = Mapping[str, Any]
FINAL: Final = ("Accuracy", "Same answers", "Operations", "Parameters", "File", "Time, one image")
_COSTS: Final = (("macs", count), ("params", count), ("bytes", size))
_COLUMNS: Final = ("original", "truncated", "compressed")


@dataclass(frozen=True)
class Cell:
    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str


def show(job: Document, model_layers: Sequence[Document]) -> dict[str, Any]:
    """The job's result with everything formatted."""
    result: Document = job["result"]
    before = {layer["name"]: layer for layer in model_layers}
    layers = [_layer(layer, before.get(layer["name"], {})) for layer in result.get("layers") or []]
    basis = (job.get("compression") or {}).get("basis")
    names = wording.NETWORKS.get(str(job.get("kind")), wording.NETWORKS["compress"])
    return {
        "facts": facts(result),
        "rows": rows(result),
        "search": search(result),
        "layers": layers,
        "layer_chart": figures.layer_chart(layers, basis),
        "kept_label": figures.kept_label(basis),
        "latency": figures.latency_chart(result, names),
        "latency_repeats": result.get("latency_repeats") or {},
        "timed_on": "GPU" if result.get("latency_device") == "cuda" else "CPU",
        "replaced": sum(1 for layer in layers if layer["replaced"]),
        "device": {"cpu": "the CPU", "cuda": "the GPU"}.get(str(result.get("device")), result.get("device")),
        "threads": result.get("threads"),
    }


def _layer(layer: Document, before: Document) -> dict[str, Any]:
    """A layer's outcome beside what it was, with the full rank of the form that it got."""
    most = most_rank(before, str(layer.get("form"))) if before and layer.get("replaced") else None
    return {
        **layer,
        "max_rank": most,
        "macs_before": before.get("macs"),
        "kept": ratio(layer.get("macs"), before.get("macs")),
        "fit": None if layer.get("error") is None else max(0.0, 1 - layer["error"]),
    }


def facts(result: Document) -> list[Fact]:
    """The few numbers that a reader came for."""
    original, compressed = result["original"], result["compressed"]
    found = []
    if compressed.get("accuracy") is not None:
        lost = compressed["accuracy"] - (original.get("accuracy") or 0)
        found.append(Fact("Accuracy", percent(compressed["accuracy"]), points(lost)))
    elif compressed.get("agreement") is not None:
        found.append(Fact("Same answers", percent(compressed["agreement"]), "as the original"))
    elif (expected := _expected(result)) is not None:
        found.append(Fact("Same answers, expected", expected, "judged on made-up images"))
    for label, key, show in (
        ("Operations", "macs", count),
        ("Stored parameters", "params", count),
        ("File", "bytes", size),
    ):
        share = ratio(compressed.get(key), original.get(key))
        if share is not None:
            found.append(Fact(label, percent(share, 0), f"{show(original[key])} → {show(compressed[key])}"))
    speed = ratio(_latency(original, "batch_1"), _latency(compressed, "batch_1"))
    if speed is not None:
        note = "no faster on this machine" if speed < 1.02 else "as fast, one image at a time"
        found.append(Fact("Speed", times(speed), note))
    return found


def _expected(result: Document) -> str | None:
    """Of a job without images: how alike the networks answer on those made from the network."""
    made = result.get("synthetic") or {}
    if made.get("expected_agreement") is not None:
        return percent(made["expected_agreement"], 0)
    figures = made.get("expected_agreement_db") or {}
    return decibels(min(figures.values())) if figures else None


def rows(result: Document, *, exact: bool = False) -> list[Row]:
    """Original, truncated and compressed side by side; measures that nobody took are left out.

    exact: every digit that was measured, for a reader who compares reports.
    """
    columns = [result.get(name) or {} for name in _COLUMNS]
    share = _finely if exact else percent
    number, bytes_ = (whole, whole) if exact else (count, size)
    found = [
        _row("Accuracy", [c.get("accuracy") for c in columns], share, _point_note),
        _row("Same answers as the original", [c.get("agreement") for c in columns], share, None),
        _row("Distance from the original", [_decibels(c) for c in columns], decibels, None),
        _row("Operations (MACs)", [c.get("macs") for c in columns], number, _share_note),
        _row("Parameters stored", [c.get("params") for c in columns], number, _share_note),
        _row("Parameters that learn", [c.get("learnable_params") for c in columns], number, _share_note),
        _row("File in bytes" if exact else "File", [c.get("bytes") for c in columns], bytes_, _share_note),
    ]
    found += [_latency_row(columns, key) for key in _timed(columns)]
    return [row for row in found if row is not None]


def final_cells(result: Document) -> list[Cell]:
    """The finished network alone, in the order of `FINAL`; a dash for what nobody measured."""
    first, last = result["original"], result["compressed"]
    pairs = [
        (last.get("accuracy"), first.get("accuracy"), percent, _point_note),
        (last.get("agreement"), None, percent, None),
        *((last.get(name), first.get(name), show, _share_note) for name, show in _COSTS),
        (_latency(last, "batch_1"), _latency(first, "batch_1"), milliseconds, _speed_note),
    ]
    return [
        Cell(show(value), note(value, before) if note and before and value is not None else "")
        for value, before, show, note in pairs
    ]


def _finely(value: float | None) -> str:
    return percent(value, 2)


def _timed(columns: Sequence[Document]) -> list[str]:
    """The batch sizes at which anything was timed."""
    return list(dict.fromkeys(key for column in columns for key in column.get("latency_ms") or {}))


def _latency_row(columns: Sequence[Document], key: str) -> Row | None:
    words = figures.batch_words(key)
    values = [_latency(column, key) for column in columns]
    return _row(f"Time, {words[0].lower()}{words[1:]}", values, milliseconds, _speed_note)


def search(result: Document) -> dict[str, Any] | None:
    """The networks tried on the way to a loss of accuracy, the smallest first."""
    found = result.get("search")
    if not found:
        return None
    macs = result["original"]["macs"]
    tries = [
        {"kept": percent(tried["macs"] / macs, 1), "lost": points(-tried["loss"]), "passed": tried["passed"]}
        for tried in sorted(found["tries"], key=lambda tried: tried["macs"])
    ]
    return {**found, "tries": tries, "allowed": lost_points(found["allowed"])}


def _row(label: str, values: list[float | None], show: Any, note: Any) -> Row | None:
    if all(value is None for value in values):
        return None
    first = values[0]
    cells = [
        Cell(show(value), note(value, first) if note and index and value is not None and first else "")
        for index, value in enumerate(values)
    ]
    return Row(label, cells)


def _point_note(value: float, first: float) -> str:
    return points(value - first)


def _share_note(value: float, first: float) -> str:
    return percent(value / first, 1)


def _speed_note(value: float, first: float) -> str:
    return f"{times(first / value)} as fast" if value else ""


def _latency(column: Document, key: str) -> float | None:
    value: float | None = (column.get("latency_ms") or {}).get(key)
    return value


def _decibels(column: Document) -> float | None:
    """One number for a network without classes: the worst output."""
    value = column.get("agreement_db")
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        known = [item for item in value if item is not None]
        return min(known) if known else None
    return value if isinstance(value, int | float) else None
