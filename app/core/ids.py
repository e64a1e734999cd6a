"""Resource ids: a prefix that says what it is, then 26 characters that sort by creation time (a ULID)."""

import re
import secrets
from datetime import datetime
from typing import Final, Literal

Prefix = Literal[
    "model",
    "dataset",
    "plan",
    "job",
    "batch",
    "artifact",
    "event",
    "key",
    "owner",
    "upload",
    "request",
    "webhook",
    "message",
]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u
_PATTERN: Final = re.compile(rf"[a-z]+_[{_ALPHABET}]{{26}}")


def new_id(prefix: Prefix, now: datetime) -> str:
    """A fresh id such as ``job_01k9…``; ids made in different milliseconds sort by time."""
    number = (int(now.timestamp() * 1000) << 80) | secrets.randbits(80)
    digits = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
    return f"{prefix}_{digits}"


def new_ids(prefix: Prefix, now: datetime, number: int) -> list[str]:
    """So many fresh ids, sorted: rows made at once stay in the order of what they were made from."""
    return sorted(new_id(prefix, now) for _ in range(number))


def is_id(text: str, prefix: Prefix) -> bool:
    """Whether a text from outside has the form of this kind of id."""
    return text.startswith(f"{prefix}_") and _PATTERN.fullmatch(text) is not None
