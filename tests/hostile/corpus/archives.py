"""Zips and tars that lead out, unfold without end, or are not what they say."""

import bz2
import functools
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from tests.data.making import class_folders, encode, picture, tar_of, zip_of
from tests.hostile.corpus import READY, add

BAD, LIMIT = "malformed_dataset", "resource_limit"
PIXELS = encode(picture(4, 4))


@functools.cache
def good() -> dict[str, bytes]:
    return class_folders()


def case(name: str, make: Callable[[], bytes], codes: str = BAD, **more: Any) -> None:
    filename = more.pop("filename", "images.zip")
    add("archives", name, lambda _: make(), codes, to="datasets", filename=filename, **more)


# Names that lead out.
ESCAPES = {
    "above": "../evil.png",
    "above, from a class": "cat/../../evil.png",
    "absolute": "/etc/evil.png",
    "a drive": "C:\\evil.png",
    "above, in Windows' way": "..\\..\\evil.png",
    "a share": "\\\\server\\share\\evil.png",
    "the folder itself": "cat/..",
    "NUL": "cat/a\0.png",
    "control characters": "cat/\x1b[2Jb.png",
    "ten thousand letters": "cat/" + "n" * 10_000 + ".png",
    "only slashes": "////.png/",
    "text that turns its direction": "cat/\u202egnp.exe.png",
}
for _name, _path in ESCAPES.items():
    case(
        f"zip with a name: {_name}",
        lambda p=_path: zip_of(good() | {p: PIXELS}),
        f"{BAD} {READY}" if _name in ("NUL", "only slashes") else BAD,
    )
    if "\0" not in _path:
        case(
            f"tar with a name: {_name}",
            lambda p=_path: tar_of(good() | {p: PIXELS}),
            f"{BAD} {READY}" if _name == "only slashes" else BAD,
            filename="images.tar",
        )


# What is no plain file.
KINDS = {
    "a symbolic link": (tarfile.SYMTYPE, "../../../../etc/passwd"),
    "a hard link": (tarfile.LNKTYPE, "/etc/passwd"),
    "a character device": (tarfile.CHRTYPE, ""),
    "a block device": (tarfile.BLKTYPE, ""),
    "a pipe": (tarfile.FIFOTYPE, ""),
    "a sparse file": (tarfile.GNUTYPE_SPARSE, ""),
    "an unknown kind": (b"Z", ""),
}


def tar_with(kind: bytes, target: str) -> bytes:
    buffer = io.BytesIO(tar_of(good()))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        info = tarfile.TarInfo("cat/odd.png")
        info.type, info.linkname = kind, target
        info.devmajor, info.devminor = 1, 5
        archive.addfile(info)
    return buffer.getvalue()


def zip_with(mode: int, content: bytes) -> bytes:
    buffer = io.BytesIO(zip_of(good()))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("cat/odd.png")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, content)
    return buffer.getvalue()


for _name, (_kind, _target) in KINDS.items():
    case(
        f"tar with {_name}",
        lambda k=_kind, t=_target: tar_with(k, t),
        BAD,
        filename="images.tar",
    )
for _name, _mode in {
    "a symbolic link": stat.S_IFLNK,
    "a device": stat.S_IFCHR,
    "a pipe": stat.S_IFIFO,
}.items():
    case(
        f"zip with {_name}",
        lambda m=_mode: zip_with(m, b"/etc/passwd"),
        BAD,
    )


def link_then_write() -> bytes:
    """The classic: a link out, then a file through it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("cat")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        archive.addfile(link)
        info = tarfile.TarInfo("cat/evil.png")
        info.size = len(PIXELS)
        archive.addfile(info, io.BytesIO(PIXELS))
    return buffer.getvalue()


case("tar with a link and a file through it", link_then_write, BAD, filename="images.tar")

# Bombs.


def one_bomb(size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in good().items():
            archive.writestr(name, data)
        with archive.open("cat/bomb.bmp", "w", force_zip64=True) as member:
            for _ in range(size >> 20):
                member.write(bytes(1 << 20))
    return buffer.getvalue()


def nested(depth: int) -> bytes:
    """42.zip's way: a zip of ten zips of ten zips …"""
    inner = one_bomb(50 << 20)
    for _ in range(depth):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(10):
                archive.writestr(f"{number}.zip", inner)
        inner = buffer.getvalue()
    return inner


def lying_bomb() -> bytes:
    """150 MB of zeros whose directory says 1 kB."""
    data = bytearray(one_bomb(150 << 20))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    return bytes(data)


def record(name: bytes, packed: int, unpacked: int, crc: int, method: int, offset: int) -> bytes:
    return (
        struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\x01\x02",
            20,
            20,
            0,
            method,
            0,
            33,
            crc,
            packed,
            unpacked,
            len(name),
            0,
            0,
            0,
            0,
            0,
            offset,
        )
        + name
    )


def overlapping(names: int) -> bytes:
    """David Fifield's idea, simply: many names whose bytes are the same bytes."""
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    unpacked = 20 << 20
    packed = body.compress(bytes(unpacked)) + body.flush()
    crc = zlib.crc32(bytes(unpacked))
    local = (
        struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 33, crc, len(packed), unpacked, 9, 0)
        + b"cat/0.bmp"
    )
    directory = b"".join(record(b"cat/%d.bmp" % n, len(packed), unpacked, crc, 8, 0) for n in range(names))
    start = len(local) + len(packed)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, names, names, len(directory), start, 0)
    return local + packed + directory + end


def tar_bomb(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(tar_of(good() | {"cat/bomb.bmp": bytes(150 << 20)}))


case("zip of 1 GB of zeros", lambda: one_bomb(1 << 30), LIMIT)
case("zip of 150 MB of zeros", lambda: one_bomb(150 << 20), LIMIT)
case("zips in zips in zips", lambda: nested(3), f"{BAD} {LIMIT}")
case("zip whose directory hides 150 MB", lying_bomb, f"{BAD} {LIMIT}")
case("zip of 5,000 names for the same 20 MB", lambda: overlapping(5000), f"{LIMIT} {BAD}")
case("tar.gz of 150 MB of zeros", lambda: tar_bomb(gzip.compress), LIMIT, filename="images.tar.gz")
case("tar.bz2 of 150 MB of zeros", lambda: tar_bomb(bz2.compress), LIMIT, filename="images.tar.bz2")
case("tar.xz of 150 MB of zeros", lambda: tar_bomb(lzma.compress), LIMIT, filename="images.tar.xz")
case(
    "gzip in gzip in gzip",
    lambda: gzip.compress(gzip.compress(gzip.compress(bytes(150 << 20)))),
    f"{BAD} {LIMIT}",
    filename="images.tar.gz",
)
case("gzip of 100,000 empty members", lambda: gzip.compress(b"") * 100_000, BAD, filename="images.tar.gz")
case(
    "xz that asks for 4 GB of dictionary", lambda: xz_of(), f"{BAD} {LIMIT} {READY}", filename="images.tar.xz"
)


def xz_of() -> bytes:
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ)
    data = bytearray(compressor.compress(tar_of(good())) + compressor.flush())
    at = data.index(b"\x21\x01") + 2  # LZMA2's one property: the dictionary's size
    data[at] = 40  # 4 GB
    header = data[12 : 12 + (data[12] + 1) * 4 - 4]
    data[12 + len(header) : 16 + len(header)] = zlib.crc32(header).to_bytes(4, "little")
    return bytes(data)


# Very many, or the same one again.


def entries(count: int, suffix: str) -> bytes:
    """Empty files, written without zipfile, which would take minutes."""
    directory, body = [], []
    offset = 0
    for number in range(count):
        name = b"a/%07d%s" % (number, suffix.encode())
        local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        directory.append(record(name, 0, 0, 0, 0, offset))
        body.append(local)
        offset += len(local)
    whole = b"".join(directory)
    zip64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(whole), offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, offset + len(whole), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"".join(body) + whole + zip64 + locator + end


def tar_entries(count: int) -> bytes:
    info = tarfile.TarInfo("a/0000000.png")
    blocks = []
    for number in range(count):
        info.name = f"a/{number:07d}.png"
        blocks.append(info.tobuf(tarfile.USTAR_FORMAT))
    return b"".join(blocks) + bytes(1024)


def twice(pack: Callable[..., bytes]) -> bytes:
    return pack(good() | {"./cat//0.png": PIXELS})


def same_name_twice() -> bytes:
    buffer = io.BytesIO(zip_of(good()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("cat/0.png", b"another")
    return buffer.getvalue()


case("zip of a million empty files", lambda: entries(1_000_000, ".txt"), f"{BAD} {LIMIT}")
case("zip of a million empty images", lambda: entries(1_000_000, ".png"), f"{BAD} {LIMIT}")
case("zip of 50,000 empty images", lambda: entries(50_000, ".png"), f"{BAD} {LIMIT}")
case("tar of 200,000 empty images", lambda: tar_entries(200_000), f"{BAD} {LIMIT}", filename="images.tar")
case("zip with one file under two spellings", lambda: twice(zip_of), BAD)
case("tar with one file under two spellings", lambda: twice(tar_of), BAD, filename="images.tar")
case("zip with one name twice", same_name_twice, BAD)
case("zip with names that differ by their case", lambda: zip_of(good() | {"CAT/0.png": PIXELS}), READY)
case(
    "folders nested 400 deep",
    lambda: zip_of({"a/" * 400 + f"{n}.png": PIXELS for n in range(3)}),
    f"{READY} {BAD}",
)
case(
    "100,000 classes of nothing",
    lambda: zip_of(good() | {f"c{n}/": b"" for n in range(100_000)}),
    LIMIT,
)

# Damage.


def flag(bit: int) -> bytes:
    """A bit of the first entry's flags, in the directory and in front of its bytes."""
    data = bytearray(zip_of(good()))
    data[data.index(b"PK\x01\x02") + 8] |= bit
    data[6] |= bit
    return bytes(data)


def byte_of(data: bytes, at: int, value: int) -> bytes:
    changed = bytearray(data)
    changed[at] = value
    return bytes(changed)


def method(number: int) -> bytes:
    data = bytearray(zip_of(good()))
    entry = data.index(b"PK\x01\x02")
    data[entry + 10 : entry + 12] = number.to_bytes(2, "little")
    data[8:10] = number.to_bytes(2, "little")
    return bytes(data)


def stored_wrong_crc() -> bytes:
    data = bytearray(zip_of(good()))
    for at in (14, data.index(b"PK\x01\x02") + 16):
        data[at : at + 4] = b"\xde\xad\xbe\xef"
    return bytes(data)


def long_link(size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT) + tar_of(good())


def pax(headers: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
        for name, data in good().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_size(size: int) -> bytes:
    info = tarfile.TarInfo("cat/big.png")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + tar_of(good())


case("an encrypted zip", lambda: flag(1), BAD)
case("a zip in strong encryption", lambda: flag(0x41), BAD)
case("a zip of patches", lambda: flag(0x20), BAD)
case("a zip packed by an unknown method", lambda: method(99), BAD)
case("a zip that says LZMA and is not", lambda: method(14), BAD)
case("a zip with a wrong checksum", stored_wrong_crc, BAD)
case("a zip cut in the middle", lambda: zip_of(good())[: len(zip_of(good())) // 2], BAD)
case("a zip without its directory", lambda: zip_of(good())[: zip_of(good()).index(b"PK\x01\x02")], BAD)
case("a zip of nothing", lambda: zip_of({}), "unsupported_format malformed_dataset")
case("a zip in two volumes", lambda: byte_of(zip_of(good()), len(zip_of(good())) - 18, 1), f"{BAD} {READY}")
case(
    "a zip behind a megabyte of noise",
    lambda: b"PK\x03\x04" + bytes(1 << 20) + zip_of(good()),
    f"{BAD} {READY}",
)
case("a tar cut in the middle", lambda: tar_of(good())[:5000], BAD, filename="images.tar")
case("a tar header of 8 GB", lambda: long_link(8_000_000_000), BAD, filename="images.tar")
case("a tar header of negative length", lambda: long_link(-1), BAD, filename="images.tar")
case("a tar file of 2^60 bytes", lambda: tar_size(1 << 60), f"{BAD} {LIMIT}", filename="images.tar")
case("a tar file of negative size", lambda: tar_size(-(1 << 20)), BAD, filename="images.tar")
case("a tar whose extended header says another size", lambda: pax({"size": "-5"}), BAD, filename="images.tar")
case(
    "a tar whose extended header says a size of a million digits",
    lambda: pax({"size": "9" * 1_000_000}),
    f"{BAD} {LIMIT}",
    filename="images.tar",
)
case(
    "a tar whose extended header says sparse",
    lambda: pax({"GNU.sparse.map": "0," * 9, "GNU.sparse.size": "9" * 18}),
    f"{BAD} {READY}",
    filename="images.tar",
)
case(
    "a tar of a million bytes of text",
    lambda: bytes(257) + b"ustar" + b"x" * 1_000_000,
    BAD,
    filename="images.tar",
)
case("gzip of noise", lambda: gzip.compress(bytes(range(256)) * 40), BAD, filename="images.tar.gz")
case(
    "gzip with a wrong checksum",
    lambda: gzip.compress(tar_of(good()))[:-8] + bytes(8),
    BAD,
    filename="images.tar.gz",
)
