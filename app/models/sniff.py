"""What an uploaded network is, told from its first bytes: refuse at once what the format alone rules out.

Nothing here reads more than the head of the file; whether the file is whole and safe is for the inspector.
"""

import contextlib
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final, Literal

from app.core.errors import UnsafeSerialization, UnsupportedFormat

HEAD_BYTES: Final = 65_536  # enough to see the names of a zip's first records past one small weight

Format = Literal["onnx", "pt2", "huggingface", "weights"]

ACCEPTED: Final = (
    "Send a single-file ONNX (torch.onnx.export), a .pt2 file (torch.export.save), a zip or tar of a "
    "Hugging Face model folder (config.json and model.safetensors), or weights with `architecture`."
)
EXPORT: Final = (
    "Load it where you trust it, then call "
    "torch.export.save(torch.export.export(model.eval(), (x,)), 'm.pt2') or "
    "torch.onnx.export(model.eval(), (x,), 'm.onnx', external_data=False)."
)

_MAGIC: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, probably Keras weights (.h5)", "Convert it with tf2onnx."),
    (b"GGUF", "a GGUF file of a language model", ACCEPTED),
    (b"\x93NUMPY", "a NumPy array", "Data sets go to /v1/datasets as .npz. " + ACCEPTED),
    (b"ptrt", "a TensorRT engine", "Send the ONNX file that it was built from."),
    (b"ftrt", "a TensorRT engine", "Send the ONNX file that it was built from."),
    (b"\x7fELF", "a program or shared library", ACCEPTED),
    (b"MZ", "a Windows program", ACCEPTED),
    (b"\x1f\x8b", "a gzip archive of something else than a tar", "Unpack it and send the file itself."),
    (b"BZh", "a bzip2 archive", "Unpack it and send the ONNX or .pt2 file itself."),
    (b"\xfd7zXZ", "an xz archive of something else than a tar", "Unpack it and send the file itself."),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it and send the ONNX or .pt2 file itself."),
    (b"Rar!", "a RAR archive", "Unpack it and send the ONNX or .pt2 file itself."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it and send the ONNX or .pt2 file itself."),
    (b"\x89PNG", "a PNG image", ACCEPTED),
    (b"\xff\xd8\xff", "a JPEG image", ACCEPTED),
    (b"%PDF", "a PDF document", ACCEPTED),
)

# Files of a Hugging Face model folder that may come before its weights in the archive.
_OF_A_FOLDER: Final = {
    "config.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin",
}
_TAR_HEAD: Final = 512
_XZ_MEMORY: Final = 70_000_000  # the strongest setting's dictionary

# onnx.proto3, ModelProto: field number → wire type (0 = varint, 2 = length and bytes).
_MODEL_FIELDS: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH_FIELD: Final = 7


def sniff(head: bytes, filename: str) -> Format:
    """The format of a file that starts with `head` (the whole file, or its first HEAD_BYTES).

    Raises UnsupportedFormat or UnsafeSerialization, saying what the file is and how to get one we accept.
    """
    named = f"{filename!r}" if filename else "The file"
    if not head:
        raise UnsupportedFormat(f"{named} is empty (0 bytes).", hint=ACCEPTED)
    _refuse_pickle(head, named)
    if head.startswith(b"PK"):
        return _sniff_zip(head, named)
    if _is_tar(head):
        return "huggingface"  # the only networks that come so; the inspector sees all of it
    if _is_safetensors(head):
        return "weights"
    _refuse_known(head, named)
    if _looks_like_onnx(head):
        return "onnx"
    raise UnsupportedFormat(
        f"{named} is neither ONNX nor .pt2: it starts with {head[:8].hex(' ')}, "
        "which is not how any of them starts.",
        hint=ACCEPTED,
    )


def _refuse_pickle(head: bytes, named: str) -> None:
    if re.match(rb"\x80[\x02-\x05]", head) or re.match(rb"(\(dp0|c[\w.]+\n\w+\n|\(lp0)", head):
        raise UnsafeSerialization(
            f"{named} is a Python pickle; reading one can run any code that its author put in.", hint=EXPORT
        )


def _refuse_known(head: bytes, named: str) -> None:
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            raise UnsupportedFormat(f"{named} is {what}.", hint=hint)
    if head[4:8] == b"TFL3":
        raise UnsupportedFormat(f"{named} is a TensorFlow Lite model.", hint="Convert it with tf2onnx.")
    if re.match(rb"\s*[\[{<]", head) and b"\0" not in head:
        raise UnsupportedFormat(f"{named} is a text file (JSON, XML or HTML).", hint=ACCEPTED)
    if head.startswith(b"version https://git-lfs"):
        raise UnsupportedFormat(
            f"{named} is a Git LFS pointer, not the network itself.", hint="Run `git lfs pull` first."
        )


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _is_tar(head: bytes) -> bool:
    """Whether a tar begins here, or in what a gzip or xz archive unpacks to."""
    if head.startswith(b"sys_info\0"):  # how torch saved before 0.2
        raise UnsafeSerialization("The file is a tar of pickles, which can run any code.", hint=EXPORT)
    with contextlib.suppress(zlib.error, lzma.LZMAError, EOFError):
        if head.startswith(b"\x1f\x8b"):
            head = zlib.decompressobj(wbits=31).decompress(head, _TAR_HEAD)
        elif head.startswith(b"\xfd7zXZ"):
            head = lzma.LZMADecompressor(memlimit=_XZ_MEMORY).decompress(head, _TAR_HEAD)
    return head[257:262] == b"ustar"


def _sniff_zip(head: bytes, named: str) -> Format:
    """A zip archive by its first telling record; what the head leaves open, the inspector decides.

    The first one counts: a .pt2 holds a torch.save archive of its sample inputs further in.
    """
    names = list(_zip_names(head))
    folder = False
    for name in names:
        if name.endswith("/"):
            continue
        if name.endswith(".safetensors"):
            return "huggingface"
        folder = folder or PurePosixPath(name).name in _OF_A_FOLDER
        inside = name.split("/", 1)[-1]
        if inside.startswith(
            ("data/weights/", "data/constants/", "data/aotinductor/", "models/", "archive_")
        ):
            return "pt2"
        if inside.startswith("code/"):
            raise UnsupportedFormat(f"{named} is a TorchScript archive.", hint=EXPORT)
        if inside == "data.pkl" and not folder:  # a folder may hold such an archive
            return _torch_save(names, named)
        if name.startswith("serialized_"):
            raise UnsafeSerialization(
                f"{named} is a .pt2 in the layout of torch before 2.8, whose weights are pickles.",
                hint="Save it again with torch 2.9 or later. " + EXPORT,
            )
        if name in {"metadata.json", "model.weights.h5"}:
            raise UnsupportedFormat(f"{named} is a Keras archive.", hint="Convert it with tf2onnx.")
        if name.endswith(".npy"):
            raise UnsupportedFormat(
                f"{named} is a NumPy .npz.", hint="Data sets go to /v1/datasets. " + ACCEPTED
            )
        if name.endswith((".png", ".jpg", ".jpeg", ".onnx", ".pt2", "saved_model.pb", ".py")):
            raise UnsupportedFormat(
                f"{named} is a zip that holds {name!r}, not an exported network.", hint=ACCEPTED
            )
    return "huggingface" if folder else "pt2"


def _torch_save(names: list[str], named: str) -> Format:
    """Weights, as long as the upload names their network: whether it holds more, torch's own reader tells."""
    if any("/code/" in name for name in names):
        raise UnsupportedFormat(f"{named} is a TorchScript archive.", hint=EXPORT)
    return "weights"


def _zip_names(head: bytes) -> Iterator[str]:
    """Names in the local file headers that lie in the head (PKWARE appnote, 4.3.7)."""
    for match in re.finditer(rb"PK\x03\x04", head):
        start = match.start()
        length = int.from_bytes(head[start + 26 : start + 28], "little")
        name = head[start + 30 : start + 30 + length]
        if 0 < length <= 1024 and len(name) == length:
            yield name.decode("utf-8", "replace").replace("\\", "/")


def _looks_like_onnx(head: bytes) -> bool:
    """Whether the head reads as the fields of an onnx.ModelProto, until its graph or the end of the head."""
    position, seen = 0, set[int]()
    while position < len(head) and _GRAPH_FIELD not in seen:
        tag, position = _varint(head, position)
        field, wire = tag >> 3, tag & 7
        if _MODEL_FIELDS.get(field) != wire:
            return False
        seen.add(field)
        value, position = _varint(head, position)
        if wire == 0:
            continue
        # Field 2 is the producer's name here; a SavedModel or a Core ML file has a message there instead.
        if field == 2 and head[position : position + 1] in (b"\n", b"\x12"):
            return False
        position += value
    return bool(seen & {1, 7, 8})


def _varint(head: bytes, position: int) -> tuple[int, int]:
    """A base-128 varint and where it ends; one that is cut off or too long reads as field 0, which no
    message has."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(head):
            return 0, position
        byte = head[position]
        value, position = value | (byte & 127) << shift, position + 1
        if byte < 128:
            return value, position
    return 0, len(head)
