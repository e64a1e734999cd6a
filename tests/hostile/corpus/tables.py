"""Parquet files whose footers lie, or whose rows unfold."""

import struct
from collections.abc import Callable

from tests.data.making import zip_of
from tests.hostile.corpus import READY, add

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


def unfolding(name: str, made: Callable[[], bytes], codes: str) -> None:
    add("unfolding tables", name, lambda _: made(), codes, to="datasets", filename="images.parquet")


def of_tables(name: str) -> bytes:
    """One of those that tests/data/tables_that_unfold.py makes; pyarrow is imported when it is sent."""
    from tests.data import tables_that_unfold

    made: bytes = getattr(tables_that_unfold, name)()
    return made


for _name in ("bomb_of_a_page", "bomb_of_a_dictionary"):
    unfolding(_name.replace("_", " "), lambda n=_name: of_tables(n), "resource_limit")
    unfolding(
        f"{_name.replace('_', ' ')} in a zip",
        lambda n=_name: zip_of({"train-0.parquet": of_tables(n)}),
        "resource_limit",
    )
unfolding("a type that older readers unpickle", lambda: of_tables("old_python_type"), READY)
