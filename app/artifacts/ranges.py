"""The Range header for one range of bytes (RFC 9110, section 14)."""

import re
from typing import Final

from app.core.errors import RangeNotSatisfiable

_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last; None for the whole file.

    A header that is no single range of bytes is ignored, as the RFC wants; one outside the file raises
    RangeNotSatisfiable with its size.
    """
    match = _ONE_RANGE.fullmatch(header.strip().replace(" ", "")) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # the last n bytes
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RangeNotSatisfiable(
            f"The file has {size:,} bytes; {header} lies outside.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end
