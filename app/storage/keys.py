"""The only place that builds object keys."""

import re
from typing import Final

from app.core.ids import is_id

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
OBJECTS: Final = "objects/sha256/"
STAGING: Final = "staging/"
PIECES: Final = "uploads/"
CHECKPOINTS: Final = "checkpoints/"


def object_key(sha256: str) -> str:
    """Where the bytes with this hash lie. The two-digit folder keeps directories small: 256 of them."""
    if _SHA256.fullmatch(sha256) is None:
        raise ValueError(f"not a SHA-256 in lower-case hex: {sha256[:80]!r}")
    return f"{OBJECTS}{sha256[:2]}/{sha256}"


def hash_of(key: str) -> str | None:
    """The hash whose object lies at this key; None if it is none of ours."""
    sha256 = key.rpartition("/")[2]
    return sha256 if _SHA256.fullmatch(sha256) and key == object_key(sha256) else None


def staging_key(name: str) -> str:
    """Where an upload lies until all of it has come and its hash is known."""
    return f"{STAGING}{name}"


def pieces_prefix(upload_id: str) -> str:
    """The folder of one resumable upload's pieces."""
    if not is_id(upload_id, "upload"):
        raise ValueError(f"not the id of an upload: {upload_id[:80]!r}")
    return f"{PIECES}{upload_id}/"


def piece_key(upload_id: str, start: int, token: str) -> str:
    """Where the bytes from `start` on lie. The token is the writer's own: no two requests share a piece."""
    return f"{pieces_prefix(upload_id)}{start:015d}-{token}"


def checkpoint_key(job_id: str, name: str) -> str:
    """Where a part of a job's latest checkpoint lies; `name` is new each time, so nothing is overwritten."""
    return f"{CHECKPOINTS}{job_id}/{name}"
