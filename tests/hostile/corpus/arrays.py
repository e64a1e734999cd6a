"""Numpy archives that carry pickles, lie about their shapes, or try numpy's reader of headers."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.data.making import npz_of
from tests.hostile.corpus import READY, Traps, add
from tests.hostile.corpus.payloads import object_array, pickled

BAD, LIMIT, UNSAFE = "malformed_dataset", "resource_limit", "unsafe_serialization"
X = np.zeros((20, 4, 4, 3), np.uint8)
Y = np.arange(20) % 2


def case(name: str, make: Callable[[Traps], bytes], codes: str = BAD, **more: Any) -> None:
    add("arrays", name, make, codes, to="datasets", filename="images.npz", **more)


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin-1")
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + body


def said(shape: str, descr: str = "'|u1'", fortran: str = "False", body: bytes = bytes(960)) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    return npz(x=npy(header, body))


case("x is an array of objects", lambda t: npz(x=object_array(t)), UNSAFE)
case("y is an array of objects", lambda t: npz(x=array(X), y=object_array(t)), UNSAFE)
case("a header that is Python", lambda t: npz(x=npy(t.expression)), BAD)
case("a shape that is Python", lambda t: said(f"({t.expression},)"), BAD)
case("a type that is Python", lambda t: said("(20,4,4,3)", descr=t.expression), BAD)
case("an .npy that is a pickle", lambda t: npz(x=pickled(t, 4)), f"{BAD} {UNSAFE}")
case("a pickle beside good arrays", lambda t: npz(x=array(X), y=array(Y), evil=pickled(t, 4)), READY)


def array(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


SHAPES = {
    "2^62 by 2^62": "(4611686018427387904, 4611686018427387904, 1, 1)",
    "a product that wraps around to its bytes": "(4294967296, 4294967296, 4, 960)",
    "negative": "(-20, -4, 4, 3)",
    "negative of every axis, whose product fits": "(-20, -4, -4, -3)",
    "zero images of a size": "(0, 4, 4, 3)",
    "images of no size": "(20, 0, 0, 3)",
    "images of no size, 2^62 of them": "(4611686018427387904, 0, 4, 3)",
    "more than is there": "(2000, 4, 4, 3)",
    "less than is there": "(10, 4, 4, 3)",
    "one axis": "(960,)",
    "no axis": "()",
    "70 axes": "(" + "1," * 69 + "960)",
    "a text": "'960'",
    "fractions": "(20.0, 4, 4, 3)",
    "truths": "(True, 960, 1, 1)",
    "a list": "[20, 4, 4, 3]",
    "nested": "((20, 4), (4, 3))",
    "one image": "(1, 16, 20, 3)",
    "a thousand channels": "(1, 1, 1, 960)",
}
for _name, _shape in SHAPES.items():
    case(f"a shape: {_name}", lambda _, s=_shape: said(s), f"{BAD} {LIMIT}")

TYPES = {
    "objects, said plainly": "'|O'",
    "records": "[('r', '|u1'), ('g', '|u1')]",
    "records of objects": "[('r', '|O')]",
    "records nested 60 deep": "[('a', " * 60 + "'|u1'" + ")]" * 60,
    "records of 100 fields": "[" + ",".join(f"('f{n}', '|u1')" for n in range(100)) + "]",
    "an array in every place": "('|u1', (1000000000, 1000000000))",
    "texts": "'<U4'",
    "bytes": "'|S960'",
    "bytes of 2 GB": "'|S2147483647'",
    "nothing of no size": "'|V0'",
    "dates": "'<M8[s]'",
    "dates of an unknown unit": "'<M8[' ']'",
    "complex numbers": "'<c8'",
    "truths": "'|b1'",
    "an unknown type": "'|Z9'",
    "a file name": "'/etc/passwd'",
    "nothing": "None",
    "a number": "5",
    "big-endian numbers": "'>i8'",
    "long doubles": "'<f16'",
}
for _name, _descr in TYPES.items():
    case(f"a type: {_name}", lambda _, d=_descr: said("(20, 4, 4, 3)", descr=d), f"{BAD} {UNSAFE} {LIMIT}")

HEADERS = {
    "nothing": "",
    "brackets nested 5,000 deep": "(" * 5000,
    "minus signs, 9,000 of them": "-" * 9000 + "1",
    "operations that explode": "9**9**9**9",
    "a comprehension": "[x for x in range(10**9)]",
    "a list": "[1, 2]",
    "two keys too many": "{'descr': '|u1', 'fortran_order': False, 'shape': (960,), 'a': 1, 'b': 2}",
    "a key too few": "{'descr': '|u1', 'shape': (960,)}",
    "NUL": "{'descr': '|u1', 'fortran_order': False, 'shape': (960,)}\0\0",
    "letters of another script": "{'descr': '|u1', 'fortran_order': False, 'shape': (\xb2\xb3,)}",
    "60,000 spaces": " " * 60_000 + "{'descr': '|u1', 'fortran_order': False, 'shape': (960,)}",
    "an order that is a text": "{'descr': '|u1', 'fortran_order': 'C', 'shape': (960,)}",
    "ten thousand digits": "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 9000 + ",)}",
}
for _name, _header in HEADERS.items():
    case(f"a header of {_name}", lambda _, h=_header: npz(x=npy(h, bytes(960))), BAD)
case(
    "a header of 4 GB that is not there",
    lambda _: npz(x=b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(900)),
    BAD,
)
case("a header of a version to come", lambda _: npz(x=npy("{}", version=(9, 9))), BAD)
case("no magic", lambda _: npz(x=b"NUMPY" + bytes(960)), BAD)
case("an empty member", lambda _: npz(x=b""), BAD)

case("column-major images", lambda _: npz_of(x=np.asfortranarray(X), y=Y), READY)
case(
    "column-major images that are cut", lambda _: said("(20, 4, 4, 3)", fortran="True", body=bytes(959)), BAD
)
case(
    "a zero-byte image and a billion labels",
    lambda _: npz(
        x=npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 0, 0, 3), }"), y=array(Y)
    ),
    BAD,
)
case("labels that are fewer", lambda _: npz_of(x=X, y=Y[:5]), BAD)
case("labels beyond every class", lambda _: npz_of(x=X, y=Y + (1 << 40)), BAD)
case("labels below zero", lambda _: npz_of(x=X, y=Y - 5), BAD)
case(
    "labels of 64 bits without a sign, all of them set",
    lambda _: npz_of(x=X, y=np.full(20, (1 << 64) - 1, np.uint64)),
    BAD,
)
case("labels that are texts", lambda _: npz_of(x=X, y=np.array(["<script>"] * 20)), BAD)
case("labels that are NaN", lambda _: npz_of(x=X, y=np.full(20, np.nan)), BAD)
case("one label a million", lambda _: npz_of(x=X, y=np.array([999_999] * 20)), READY)
for _what, _value in {"NaN": np.nan, "infinite": np.inf, "beyond float32": 1e300}.items():
    case(
        f"pixels that are {_what}",
        lambda _, v=_value: npz_of(x=np.full((20, 3, 4, 4), v)),
        BAD,
    )
case("no x", lambda _: npz_of(a=X, b=Y), BAD)
case("names with HTML", lambda _: npz(**{"<script>alert(1)</script>": array(X)}), BAD)
case(
    "a hundred thousand arrays",
    lambda _: npz(x=array(X), **{f"a{n}": b"" for n in range(100_000)}),
    LIMIT,
)
case("1 GB of zeros as images", lambda _: zeros(), LIMIT)
case("x twice", lambda _: twice(), BAD)


def zeros() -> bytes:
    """An honest header and 1 GB of zeros behind it, packed a thousandfold."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1024, 1024, 1024, 1), }"))
        for _ in range(1024):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO(npz_of(x=X, y=Y))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("x", array(X))
    return buffer.getvalue()
