"""Parquet files whose footers lie."""

import struct
from collections.abc import Callable

from tests.hostile.corpus import add

REFUSED = "unsupported_format malformed_dataset resource_limit"


def case(name: str, make: Callable[[], bytes]) -> None:
    add("tables", name, lambda _: make(), REFUSED, to="datasets", filename="images.parquet")


def footer(length: int, thrift: bytes = b"") -> bytes:
    return b"PAR1" + thrift + struct.pack("<I", length) + b"PAR1"


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# FileMetaData in Thrift's compact protocol: version (i32), schema (list of struct), num_rows (i64) …
HUGE_LIST = b"\x15\x02\x19\xfc" + varint(1 << 31)
DEEP = b"\x15\x02" + b"\x1c" * 5000
MANY_ROWS = b"\x15\x02\x19\x0c\x16" + varint((1 << 63) - 1)

case("nothing between its marks", lambda: footer(0))
case("a footer of 4 GB", lambda: footer(0xFFFFFFFF))
case("a footer longer than the file", lambda: footer(5000, bytes(100)))
case("a footer with 2^31 columns", lambda: footer(len(HUGE_LIST), HUGE_LIST))
case("a footer nested 5,000 deep", lambda: footer(len(DEEP), DEEP))
case("a footer with 2^62 rows", lambda: footer(len(MANY_ROWS), MANY_ROWS))
case("an encrypted footer", lambda: b"PARE" + bytes(100) + struct.pack("<I", 90) + b"PARE")
case("no closing mark", lambda: b"PAR1" + bytes(1000))
case("only its mark", lambda: b"PAR1")
