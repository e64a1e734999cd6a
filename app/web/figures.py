"""Charts as plain shapes: shares of a frame, drawn by templates as inline SVG without any text of its own.

Each picture stretches to its place and its words stand beside it as HTML, so it reads the same on a
telephone, on paper and in the report, which may load nothing. The numbers stand in a table next to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.web.formatting import milliseconds, percent, times

Document = Mapping[str, Any]
LEAST_COLUMN: Final = 0.5  # per cent of the height: a rank of 1 of 512 still shows
UNIT: Final = "\N{NO-BREAK SPACE}ms"
MOST_POINTS: Final = 400  # of a curve: more than a page has dots across


@dataclass(frozen=True)
class Column:
    """A layer in the order of the network: its rank as a bar, what is kept of its answers as a mark."""

    about: str
    replaced: bool
    rank: float  # per cent of the full rank
    kept: float | None  # per cent


@dataclass(frozen=True)
class LayerChart:
    columns: list[Column]
    kept_label: str  # empty where nothing was fitted


@dataclass(frozen=True)
class Bar:
    """One network's time at one batch size; all in per cent of the frame's width."""

    label: str
    text: str
    note: str
    width: float
    low: float
    high: float
    final: bool


@dataclass(frozen=True)
class BarGroup:
    label: str
    bars: list[Bar]


@dataclass(frozen=True)
class Curve:
    """A measured series in a frame of 100 by 100, with the range of its axes in words."""

    label: str
    line: str  # SVG's points
    reference: float | None
    low: str
    high: str
    first: str
    last: str
    latest: str


def kept_label(basis: str | None) -> str:
    """What one minus a layer's error is called, which depends on what was measured."""
    return {"weights": "Energy kept", "activations": "Response kept"}.get(basis or "", "")


def layer_chart(layers: Sequence[Document], basis: str | None) -> LayerChart | None:
    """Rank and fit of every layer; None where no layer was replaced."""
    if not any(layer["replaced"] for layer in layers):
        return None
    label = kept_label(basis)
    return LayerChart([_column(layer, label) for layer in layers], label)


def _column(layer: Document, label: str) -> Column:
    rank, most, error = layer.get("rank"), layer.get("max_rank"), layer.get("error")
    if not layer["replaced"] or not rank:
        return Column(f"{layer['name']}: left whole", False, 100.0, None)
    share = min(1.0, rank / most) if most else 1.0
    words = f"{layer['name']}: rank {rank}" + (f" of {most}" if most and rank <= most else "")
    if error is None or not label:
        return Column(words, True, max(LEAST_COLUMN, 100 * share), None)
    kept = min(1.0, max(0.0, 1 - error))
    told = f"{words}, {percent(kept)} {label.lower().replace(' kept', '')} kept"
    return Column(told, True, max(LEAST_COLUMN, 100 * share), 100 * kept)


def latency_chart(result: Document, names: Mapping[str, str]) -> list[BarGroup]:
    """The original's and the compressed network's time, batch size by batch size, each with its spread."""
    found = (result["original"].get("latency_ms") or {}, result["compressed"].get("latency_ms") or {})
    sizes = [key for key in found[0] if found[0].get(key) and found[1].get(key)]
    return [_group(result, names, key) for key in sorted(sizes, key=_batch)]


def _group(result: Document, names: Mapping[str, str], key: str) -> BarGroup:
    pair = [(name, *latency(result[name], key)) for name in ("original", "compressed")]
    most = max(value + spread for _, value, spread in pair)
    before = pair[0][1]
    bars = [
        Bar(
            label=names[name],
            text=with_spread(value, spread),
            note="" if name == "original" else f"{times(before / value)} as fast",
            width=100 * value / most,
            low=100 * max(0.0, value - spread) / most,
            high=100 * (value + spread) / most,
            final=name == "compressed",
        )
        for name, value, spread in pair
    ]
    return BarGroup(batch_words(key), bars)


def latency(figures: Document, key: str) -> tuple[float, float]:
    """Median and spread in milliseconds; results of earlier versions have no spread."""
    value = (figures.get("latency_ms") or {}).get(key)
    spread = (figures.get("latency_spread_ms") or {}).get(key)
    return float(value or 0.0), float(spread or 0.0)


def with_spread(value: float, spread: float) -> str:
    if not spread:
        return milliseconds(value)
    return f"{milliseconds(value).removesuffix(UNIT)} ± {milliseconds(spread)}"


def batch_words(key: str) -> str:
    size = _batch(key)
    return "One image at a time" if size == 1 else f"{size} images at once"


def _batch(key: str) -> int:
    digits = key.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def curve(
    label: str, points: Sequence[tuple[int, float]], *, shares: bool, reference: float | None = None
) -> Curve | None:
    """A series as one line; None while there is nothing to draw."""
    if len(points) < 2:
        return None
    thinned = _thinned(points)
    values = [value for _, value in points] + ([] if reference is None else [reference])
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * 0.06
    low, high = low - room, high + room
    first, last = points[0][0], points[-1][0]

    def up(value: float) -> float:
        return round(100 * (high - value) / (high - low), 3)

    shown = " ".join(f"{round(100 * (x - first) / (last - first or 1), 3):g},{up(y):g}" for x, y in thinned)
    words = percent if shares else _plain
    return Curve(
        label,
        shown,
        None if reference is None else up(reference),
        words(low + room),
        words(high - room),
        str(first),
        str(last),
        words(points[-1][1]),
    )


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every n-th point and always the last, once there are more than show."""
    every = -(-len(points) // MOST_POINTS)
    kept = list(points[::every])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _plain(value: float) -> str:
    return f"{value:.3g}"
