"""Requests whose form itself is made to harm: the raw body, as no client library would send it."""

import json
from collections.abc import Sequence

from tests.formats.nets import small_onnx
from tests.hostile.corpus import Traps, add

BOUNDARY = "frontier"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
BAD = "malformed_request validation_failed"


def part(headers: Sequence[bytes], body: bytes) -> bytes:
    return (
        b"--"
        + BOUNDARY.encode()
        + b"\r\n"
        + b"".join(line + b"\r\n" for line in headers)
        + b"\r\n"
        + body
        + b"\r\n"
    )


def named(name: bytes, body: bytes, filename: bytes | None = None) -> bytes:
    tail = b"" if filename is None else b'; filename="' + filename + b'"'
    return part([b'Content-Disposition: form-data; name="' + name + b'"' + tail], body)


END = b"--" + BOUNDARY.encode() + b"--\r\n"


def file() -> bytes:
    return named(b"file", small_onnx(), b"m.onnx")


def case(
    name: str, body: bytes | None = None, content_type: str = FORM, codes: str = BAD, **more: bytes
) -> None:
    """`more`: what stands before and after the file, where there is one."""

    def make(_: Traps) -> bytes:
        if body is not None:
            return body
        return more.get("before", b"") + file() + more.get("after", b"") + more.get("end", END)

    add("requests", name, make, codes, content_type=content_type)


case("no body", b"")
case(
    "JSON",
    json.dumps({"file": "x"}).encode(),
    "application/json",
    "malformed_request validation_failed not_found",
)
case("JSON nested 100,000 deep", b"[" * 100_000, "application/json", "malformed_request validation_failed")
case("a form in its other encoding", b"file=x", "application/x-www-form-urlencoded")
case("no boundary", content_type="multipart/form-data")
case("a boundary of 10,000 letters", content_type="multipart/form-data; boundary=" + "b" * 10_000)
case("a boundary that never comes", content_type="multipart/form-data; boundary=other")
case("another kind of multipart", content_type=f"multipart/mixed; boundary={BOUNDARY}")
case("no closing boundary", end=b"")
case(
    "cut within the file",
    body=b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n\x08\x08',
)
case("no file", body=named(b"name", b"x") + END)
case("two files", after=named(b"file", b"x", b"second"))
case("an unknown field", before=named(b"<script>alert(1)</script>", b"x"))
case("a field of no name", before=part([b"Content-Disposition: form-data"], b"x"))
case("a part without headers", before=part([], b"x"))
case("a field given twice", before=named(b"name", b"a") + named(b"name", b"b"))
case("ten thousand fields", before=b"".join(named(b"f%d" % n, b"") for n in range(10_000)))
case("a field of ten megabytes", before=named(b"name", b"x" * 10_000_000))
case("a header of ten megabytes", before=part([b"X: " + b"x" * 10_000_000], b""))
case("a hundred thousand headers", before=part([b"X: y"] * 100_000, b""))
case("a name of a megabyte", before=named(b"n" * 1_000_000, b"x"))
case("a field that is no UTF-8", before=named(b"name", b"\xff\xfe"))
case("an input that is no JSON", before=named(b"input", b"{'a': __import__('os')}"))
case("an input nested 50,000 deep", before=named(b"input", b"[" * 50_000))
case("an input of a million digits", before=named(b"input", b'{"scale": ' + b"9" * 200_000 + b"}"))
case("an input of NaN", before=named(b"input", b'{"scale": NaN}'))
case(
    "an input of 2^62 pixels",
    before=named(b"input", b'{"shape": [3, 4611686018427387904, 4611686018427387904]}'),
)
case("an input of fields that it has not", before=named(b"input", b'{"__class__": "os.system"}'))
case("noise", b"\x00\xff" * 5000)
case("line feeds alone", b'--frontier\nContent-Disposition: form-data; name="file"\n\nx\n--frontier--\n')
