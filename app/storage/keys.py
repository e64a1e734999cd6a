"""The only place that builds object keys."""

import re
from typing import Final

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
STAGING: Final = "staging/"


def object_key(sha256: str) -> str:
    """Where the bytes with this hash lie. The two-digit folder keeps directories small: 256 of them."""
    if _SHA256.fullmatch(sha256) is None:
        raise ValueError(f"not a SHA-256 in lower-case hex: {sha256[:80]!r}")
    return f"objects/sha256/{sha256[:2]}/{sha256}"


def staging_key(name: str) -> str:
    """Where an upload lies until all of it has come and its hash is known."""
    return f"{STAGING}{name}"
