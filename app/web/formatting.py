"""How numbers, sizes and times are written on the pages: few digits, a unit, always the same way."""

from datetime import UTC, datetime

NOTHING = "–"
NB = "\N{NO-BREAK SPACE}"  # between a number and its unit: they stay on one line


def count(value: float | None) -> str:
    """40551040 -> 40.6 M: three digits are what a reader compares."""
    if value is None:
        return NOTHING
    for step, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= step:
            return _three_digits(value / (1e3 if unit == "k" else step)) + f"{NB}{unit}"
    return whole(value)


def whole(value: float | None) -> str:
    """269722 -> 269 722, with narrow no-break spaces."""
    return NOTHING if value is None else f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(value: float | None) -> str:
    """Bytes as kB, MB, GB (powers of 1000, as the limits are written)."""
    if value is None:
        return NOTHING
    for step, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= step:
            return f"{_three_digits(value / step)}{NB}{unit}"
    return f"{round(value)}{NB}bytes"


def percent(value: float | None, digits: int = 1) -> str:
    """0.9173 -> 91.7 %."""
    return NOTHING if value is None else f"{value * 100:.{digits}f}{NB}%"


def share(value: float) -> str:
    """A share that was asked for, with the digits that it was given: 0.6 -> 60 %, 0.001 -> 0.1 %."""
    return f"{100 * value:.4g}{NB}%"


def points(value: float | None) -> str:
    """A difference of two accuracies, with its sign: -0.0112 -> −1.12 points."""
    if value is None:
        return NOTHING
    rounded = round(value * 100, 2)
    if rounded == 0:
        return f"±0{NB}points"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.2f}{NB}points"


def lost_points(share: float) -> str:
    """An allowed loss of accuracy: 0.005 -> 0.5 points."""
    text = f"{100 * share:.3g}"
    return f"{text} point" if text == "1" else f"{text} points"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{_three_digits(value)}{NB}ms"


def decibels(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}{NB}dB"


def duration(seconds: float | None) -> str:
    """95 -> 1 min 35 s; short ones keep a decimal."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f}{NB}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}{NB}s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}{NB}h {minutes_left}{NB}min" if hours else f"{minutes}{NB}min {rest}{NB}s"


def ratio(value: float | None, reference: float | None) -> float | None:
    """value / reference, or None where either is missing or the reference is nothing."""
    return None if value is None or not reference else value / reference


def times(value: float | None) -> str:
    """A ratio as a factor: 0.583 -> 0.58×."""
    return NOTHING if value is None else f"{value:.2f}×"


def moment(value: str | datetime | None) -> str:
    """A time for reading, in UTC; the page rewrites it in the reader's own zone."""
    if value is None:
        return NOTHING
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    return when.astimezone(UTC).strftime("%d %b %Y, %H:%M UTC")


def shape(values: list[int] | None) -> str:
    """[3, 32, 32] -> 3 × 32 × 32."""
    return NOTHING if not values else " × ".join(str(value) for value in values)


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 0.1 or value == 0 else f"{value:#.2g}"
