"""The same share of every layer's full rank."""

from basisconv.errors import InvalidRequest


def fraction_rank(max_rank: int, fraction: float) -> int:
    """`fraction` of `max_rank`, rounded to the nearest whole number, at least 1."""
    if not 0 < fraction <= 1:
        raise InvalidRequest(f"the rank fraction must be in (0, 1], got {fraction}")
    return max(1, min(max_rank, int(max_rank * fraction + 0.5)))


def round_rank(rank: int, multiple: int, max_rank: int) -> int:
    """`rank` rounded up to a multiple that hardware likes, within the layer's full rank."""
    return min(max_rank, -(-rank // multiple) * multiple)
