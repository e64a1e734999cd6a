"""What an uploaded data set is, told from its first bytes. Whether it is whole is for the inspector."""

import re
from typing import Final, Literal

from app.core.errors import UnsafeSerialization, UnsupportedFormat

Format = Literal["npz", "images", "parquet"]

ACCEPTED: Final = (
    "Send an .npz with x and y, a zip or tar of class folders with images, or Parquet with images and labels."
)

_REFUSED: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"PARE", "an encrypted Parquet file", "Write it without encryption."),
    (b"\x93NUMPY", "a single NumPy array", "Save it with numpy.savez_compressed(path, x=x, y=y)."),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "Save its arrays with numpy.savez_compressed(path, x=x, y=y)."),
    (b"7z\xbc\xaf", "a 7-Zip archive", ACCEPTED),
    (b"Rar!", "a RAR archive", ACCEPTED),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", ACCEPTED),
    (b"\x89PNG", "a single PNG image", ACCEPTED),
    (b"\xff\xd8\xff", "a single JPEG image", ACCEPTED),
    (b"%PDF", "a PDF document", ACCEPTED),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself", "Run `git lfs pull` first."),
)
_COMPRESSED_TAR: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]|\(dp0|c[\w.]+\n\w+\n|\(lp0")


def sniff(head: bytes, filename: str) -> Format:
    """The format of a file that starts with `head`. Raises UnsupportedFormat or UnsafeSerialization."""
    named = repr(filename) if filename else "The file"
    if not head:
        raise UnsupportedFormat(f"{named} is empty (0 bytes).", hint=ACCEPTED)
    if _PICKLE.match(head):
        raise UnsafeSerialization(
            f"{named} is a Python pickle; reading one can run any code that its author put in.",
            hint="Save the arrays with numpy.savez_compressed(path, x=x, y=y).",
        )
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(head, named)
    if head.startswith(_COMPRESSED_TAR) or head[257:262] == b"ustar":
        return "images"  # or Parquet: the inspector sees all of it
    if head.startswith(b"PAR1"):
        return "parquet"
    for magic, what, hint in _REFUSED:
        if head.startswith(magic):
            raise UnsupportedFormat(f"{named} is {what}.", hint=hint)
    raise UnsupportedFormat(
        f"{named} is neither an .npz, a zip, a tar nor Parquet: it starts with {head[:8].hex(' ')}.",
        hint=ACCEPTED,
    )


def _sniff_zip(head: bytes, named: str) -> Format:
    if head.startswith(b"PK\x05\x06"):
        raise UnsupportedFormat(f"{named} is a zip with nothing in it.", hint=ACCEPTED)
    length = int.from_bytes(head[26:28], "little")
    first = head[30 : 30 + length].decode("utf-8", "replace")
    if first.endswith("data.pkl"):
        raise UnsafeSerialization(
            f"{named} is a torch.save archive: its data.pkl is a Python pickle, which can run any code.",
            hint="Save the arrays with numpy.savez_compressed(path, x=x.numpy(), y=y.numpy()).",
        )
    if first.endswith(".npy"):
        return "npz"
    return "parquet" if first.lower().endswith(".parquet") else "images"
