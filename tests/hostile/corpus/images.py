"""Pictures that claim to be enormous, are cut, or are something else as well."""

import functools
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.data.making import class_folders, encode, picture, zip_of
from tests.hostile.corpus import READY, Traps, add

BAD, LIMIT = "malformed_dataset", "resource_limit"
SIDE = 60_000


@functools.cache
def good() -> dict[str, bytes]:
    return class_folders()


def case(name: str, make: Callable[[], bytes], codes: str, suffix: str = "png", **more: Any) -> None:
    """One picture among good ones."""

    def packed(_: Traps) -> bytes:
        return zip_of(good() | {f"cat/odd.{suffix}": make()})

    add("images", name, packed, codes, to="datasets", filename="images.zip", **more)


# Headers of 60,000 × 60,000.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", body or zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + data + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(encode(picture(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x02\x4c\x01\x00;"
    )


def tiff(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 100),
        *more,
    ]
    listed = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + listed + bytes(200)


def webp(width: int, height: int) -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    frame = encode(picture(8, 8), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(body) + len(frame)) + b"WEBP" + body + frame


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 1000, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(900)
    )


def ppm(width: int, height: int) -> bytes:
    return b"P6\n%d %d\n255\n" % (width, height) + bytes(1000)


HEADS: dict[str, Callable[[int, int], bytes]] = {
    "png": png,
    "jpg": jpeg,
    "gif": gif,
    "tif": tiff,
    "webp": webp,
    "bmp": bmp,
    "ppm": ppm,
}
for _suffix, _head in HEADS.items():
    _side = 16_000 if _suffix == "webp" else SIDE
    case(
        f"{_suffix} of {_side:,} pixels a side",
        lambda h=_head, s=_side: h(s, s),
        f"{LIMIT} {BAD}",
        _suffix,
    )
case("png of 2^31 pixels a side", lambda: png(2**31 - 1, 2**31 - 1), f"{LIMIT} {BAD}")
case("png of no pixels", lambda: png(0, 0), BAD)
case("ppm of negative size", lambda: ppm(-60_000, -60_000), BAD, "ppm")
case(
    "ppm of a size of a million digits",
    lambda: b"P6\n" + b"9" * 1_000_000 + b" 1\n255\n",
    f"{LIMIT} {BAD}",
    "ppm",
)
case("bmp of the smallest number for its height", lambda: bmp(10, -(2**31)), f"{LIMIT} {BAD}", "bmp")
case("a line of 49 million pixels", lambda: line(), f"{READY} {LIMIT} {BAD}")


def line() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (49_000_000, 1)).save(buffer, "PNG")
    return buffer.getvalue()


# Damage.
for _form, _suffix in {
    "PNG": "png",
    "JPEG": "jpg",
    "GIF": "gif",
    "TIFF": "tif",
    "WEBP": "webp",
    "BMP": "bmp",
}.items():
    case(
        f"{_suffix} cut in the middle",
        lambda f=_form: encode(picture(40, 40), f)[: len(encode(picture(40, 40), f)) // 2],
        BAD,
        _suffix,
    )
case("png with a wrong checksum", lambda: encode(picture(9, 9))[:-8] + bytes(8), f"{BAD} {READY}")
case("png whose pixels are too few", lambda: png(500, 500), BAD)
case(
    "png whose pixels are a bomb",
    lambda: png(100, 100, body=zlib.compress(bytes(100 << 20), 9)),
    f"{BAD} {READY} {LIMIT}",
)
case("png of a depth that is none", lambda: png(9, 9, depth=7), BAD)
case("jpeg of nothing but its beginning", lambda: b"\xff\xd8\xff\xe0", BAD, "jpg")
case("tiff whose directory points at itself", lambda: tiff_loop(), f"{BAD} {READY}", "tif")
case(
    "tiff that says its numbers are 4 GB",
    lambda: tiff(9, 9, (34675, 7, 0xFFFFFFFF, 8)),
    f"{BAD} {READY}",
    "tif",
)
case("tiff of 60,000 bits a sample", lambda: tiff(9, 9, (339, 3, 1, 60_000)), BAD, "tif")
case("an empty image", lambda: b"", BAD)
case("a text that is called an image", lambda: b"not an image", BAD)


def tiff_loop() -> bytes:
    data = bytearray(encode(picture(9, 9), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    end = start + 2 + 12 * count
    data[end : end + 4] = start.to_bytes(4, "little")
    return bytes(data)


# What reads other files or starts programs where it is opened: none of these are images here.
OTHERS = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n",
    "pdf": b"%PDF-1.4\n",
    "xpm": b'/* XPM */ static char *x[] = {"1 1 1 1"};',
    "psd": b"8BPS\0\x01" + bytes(100),
    "icns": b"icns" + bytes(100),
    "fits": b"SIMPLE  =                    T" + bytes(5000),
    "mpo": b"\xff\xd8\xff\xe2",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "avif": b"\0\0\0\x20ftypavif" + bytes(100),
}
for _kind, _data in OTHERS.items():
    case(f"{_kind} called png", lambda d=_data: d, BAD)

# Things beside the pixels.


def exif(entry: bytes, rest: bytes = b"") -> bytes:
    """A JPEG whose EXIF directory has one entry; `rest` stands behind it, at byte 26."""
    body = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + struct.pack("<I", 0) + rest
    data = encode(picture(9, 9), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def segments(count: int) -> bytes:
    data = encode(picture(9, 9), "JPEG")
    return data[:2] + b"".join(b"\xff\xe1\xff\xff" + bytes(65_533) for _ in range(count)) + data[2:]


def text_bomb() -> bytes:
    return png(9, 9, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100 << 20), 9)))


def icc_bomb() -> bytes:
    return png(9, 9, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100 << 20), 9)))


case("a picture turned 99 times", lambda: exif(struct.pack("<HHII", 0x0112, 3, 1, 99)), READY, "jpg")
case(
    "a picture whose turn is a text",
    lambda: exif(struct.pack("<HHII", 0x0112, 2, 8, 26), b"<script>"),
    READY,
    "jpg",
)
case("EXIF that points at itself", lambda: exif(struct.pack("<HHII", 0x8769, 4, 1, 8)), READY, "jpg")
case("jpeg with 500 blocks of EXIF", lambda: segments(500), f"{READY} {BAD}", "jpg")
case("png with 100 MB of text", text_bomb, f"{READY} {BAD} {LIMIT}")
case("png with 100 MB of colour profile", icc_bomb, f"{READY} {BAD} {LIMIT}")
case("png with 100,000 chunks", lambda: png(9, 9, chunk(b"tEXt", b"k\0v") * 100_000), f"{READY} {BAD}")

# Many in one.


def animated(form: str, frames: int, side: int = 20) -> bytes:
    buffer = io.BytesIO()
    pictures = [Image.fromarray(np.full((side, side, 3), n % 256, np.uint8)) for n in range(frames)]
    pictures[0].save(buffer, form, save_all=True, append_images=pictures[1:], duration=10, loop=0)
    return buffer.getvalue()


case("gif of 200 frames", lambda: animated("GIF", 200), READY, "gif")
case("webp of 200 frames", lambda: animated("WEBP", 200), READY, "webp")
case("png of 200 frames", lambda: animated("PNG", 200), READY)
case("tiff of 200 pages", lambda: animated("TIFF", 200), READY, "tif")
case(
    "a picture that is a zip and a page as well",
    lambda: encode(picture(6, 6)) + b"<script>alert(1)</script>" + zip_of({"evil.py": b"x"}),
    READY,
)
case("a gif that is a script", lambda: b"GIF89a/*" + bytes(10) + b"*/=alert(1);", BAD, "gif")
case("a jpeg that is called png", lambda: encode(picture(6, 6), "JPEG"), READY)
case("grey of 32 bits", lambda: encode_grey(), BAD, "tif")


def encode_grey() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 6), 10**9, np.int32)).save(buffer, "TIFF")
    return buffer.getvalue()
