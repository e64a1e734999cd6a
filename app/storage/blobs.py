"""What is known of bytes in the store."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Blob:
    """Bytes at their address."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Staged(Blob):
    """Bytes that have come completely but are not at their address yet."""

    key: str
