"""What is known of bytes in the store."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Blob:
    """Bytes at their address."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Stored(Blob):
    """An object at its address, and when its bytes were last written."""

    written_at: datetime


@dataclass(frozen=True)
class Staged(Blob):
    """Bytes that have come completely but are not at their address yet."""

    key: str
