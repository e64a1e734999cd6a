"""The zip archive of torch.export.save, read by ourselves: nothing in it is unpickled, nothing is executed.

torch.export.load on a stranger's file is remote code execution: it unpickles sample inputs, payloads flagged
`use_pickle` and custom objects, evaluates symbolic sizes with sympy's `sympify` (Python's eval), puts node
names into generated source and calls any function below `torch` that the graph names (torch 2.13,
torch/export/pt2_archive/_package.py and torch/_export/serde/serialize.py). So the archive is taken apart
here, its graph rebuilt from what pt2_schema.py lets through, and only the new archive, which pt2_rewriting.py
makes, is loaded. No torch here: what is refused is refused before it is imported.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn

from basisconv.errors import MethodError
from basisconv.formats.names import quoted

MAX_RECORDS: Final = 100_000
MAX_AXES: Final = 16
MAX_JSON_BYTES: Final = 200_000_000  # ResNet-56's graph takes 0.4 MB
SAVE_AGAIN: Final = "Save it again: torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')."

# torch._export.serde.schema.ScalarType -> bytes; what a network may store.
ITEM_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
FLOATS: Final = frozenset({6, 7, 8, 13})
# Where torch.export.pt2_archive.constants has the records; to import it takes a second.
MODEL: Final = "models/{}.json"
WEIGHTS, WEIGHTS_CONFIG = "data/weights/", "data/weights/{}_weights_config.json"
CONSTANTS, CONSTANTS_CONFIG = "data/constants/", "data/constants/{}_constants_config.json"


@dataclass
class Payload:
    """A stored tensor: its bytes and the meta data that says how to read them."""

    record: str
    is_param: bool
    meta: dict[str, Any]

    def extent(self) -> tuple[list[int], list[int], int]:
        """Sizes, strides and offset."""
        sizes, strides = ([value["as_int"] for value in self.meta[key]] for key in ("sizes", "strides"))
        return sizes, strides, self.meta["storage_offset"]["as_int"]


@dataclass
class Archive:
    """What a .pt2 file holds, as plain data."""

    program: dict[str, Any]
    weights: dict[str, Payload]
    constants: dict[str, Payload]
    blobs: dict[str, bytes]  # record (data/weights/weight_0 …) -> bytes

    def payloads(self) -> Iterator[tuple[str, Payload]]:
        yield from self.weights.items()
        yield from self.constants.items()


def read(file: IO[bytes]) -> Archive:
    """Take the archive apart. Raises malformed_model, unsupported_format, unsafe_serialization."""
    with _open(file) as archive:
        _check_whole(archive)
        _refuse_strangers([entry.filename.split("/", 1)[-1] for entry in archive.infolist()])
        records = _records(archive)
        program_name = _program_name(records)
        if _text(archive, records, "archive_format") != "pt2":
            malformed("Its record archive_format does not say pt2.")
        if _text(archive, records, "archive_version") != "0":
            malformed("Its archive_version is not 0, the only one that torch 2.13 writes.")
        if "byteorder" in records and _text(archive, records, "byteorder") != "little":
            malformed("It was written on a big-endian machine.")
        weights = _payloads(archive, records, WEIGHTS_CONFIG.format(program_name), WEIGHTS)
        constants = _payloads(archive, records, CONSTANTS_CONFIG.format(program_name), CONSTANTS)
        program = _json(archive, records, MODEL.format(program_name))
        wanted = {payload.record for payload in [*weights.values(), *constants.values()]}
        blobs = {record: _bytes(archive, records[record]) for record in sorted(wanted)}
    for name, payload in [*weights.items(), *constants.items()]:
        _check_payload(name, payload, len(blobs[payload.record]))
    return Archive(program, weights, constants, blobs)


def malformed(detail: str, layer: str | None = None) -> NoReturn:
    raise MethodError(
        "malformed_model", f"The .pt2 file is not valid. {detail}", layer=layer, hint=SAVE_AGAIN
    )


def unsafe(detail: str, layer: str | None = None) -> NoReturn:
    raise MethodError(
        "unsafe_serialization",
        f"The .pt2 file could run code when it is read. {detail}",
        layer=layer,
        hint="Only plain tensors and ATen operators are accepted. " + SAVE_AGAIN,
    )


def _open(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        malformed(f"Its zip directory cannot be read ({error}): it may be cut off.")


def _check_whole(archive: zipfile.ZipFile) -> None:
    """Python's zipfile takes the last directory that it finds, be it that of an archive further in."""
    entries = archive.infolist()
    if not entries or min(entry.header_offset for entry in entries) or archive.comment:
        malformed("It does not begin with its first record or end with its directory: it may be cut off.")


def _records(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Records by their name below the one root folder, their sizes checked against the file's own."""
    entries = archive.infolist()
    if not 0 < len(entries) <= MAX_RECORDS:
        malformed(f"It has {len(entries)} records; up to {MAX_RECORDS} are possible.")
    stream = archive.fp
    assert stream is not None
    file_bytes = stream.seek(0, io.SEEK_END)
    declared = sum(entry.file_size for entry in entries)
    if declared > file_bytes:
        malformed(f"Its records claim {declared} bytes, the whole file has {file_bytes}.")
    records: dict[str, zipfile.ZipInfo] = {}
    root = entries[0].filename.split("/", 1)[0]
    for entry in entries:
        name = entry.filename
        parts = name.split("/")
        if ".." in parts or "" in parts or "." in parts or "\\" in name or "\0" in name or ":" in name:
            malformed(f"The record name {quoted(name)} leaves the archive's folder.")
        packed = entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size
        if entry.flag_bits & 1 or packed:
            malformed(
                f"The record {quoted(name)} is compressed or encrypted; torch.export.save stores plainly."
            )
        if len(parts) == 1 or parts[0] != root:
            _refuse_old(name)
            malformed(f"The record {quoted(name)} lies outside the archive's folder {quoted(root)}.")
        inner = name.split("/", 1)[1]
        if inner in records:
            malformed(f"The record {quoted(name)} occurs twice.")
        records[inner] = entry
    return records


def _refuse_old(name: str) -> None:
    if name.startswith("serialized_") or name == "version":
        unsafe("It has the layout of torch before 2.8, whose weights are pickles.")


def _refuse_strangers(names: list[str]) -> None:
    for name in names:
        if name.startswith("code/"):
            raise MethodError("unsupported_format", "The file is a TorchScript archive.", hint=SAVE_AGAIN)
        if name == "data.pkl" or name.endswith(".pkl"):
            unsafe(f"It holds the pickle {quoted(name)}, as torch.save writes it.")
        if name.startswith("data/aotinductor/"):
            unsafe(f"It holds compiled code of AOTInductor ({quoted(name)}).")
        if re.match(r"data/constants/(custom|opaque)_obj_", name):
            unsafe(f"It holds the pickled object {quoted(name)}.")
        if re.fullmatch(r"data/(weights|constants)/[^/]*\.pt", name):
            unsafe(f"Its weights are the pickle {quoted(name)}, as torch before 2.9 wrote them.")


def _program_name(records: dict[str, zipfile.ZipInfo]) -> str:
    names = [match[1] for name in records if (match := re.fullmatch(r"models/([\w.-]+)\.json", name))]
    if len(names) != 1:
        malformed(f"It holds {len(names)} exported programs; one is expected.")
    return names[0]


def _text(archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], name: str) -> str:
    if name not in records:
        malformed(f"Its record {quoted(name)} is missing.")
    if records[name].file_size > MAX_JSON_BYTES:
        raise MethodError(
            "resource_limit",
            f"The record {quoted(name)} of the .pt2 file has {records[name].file_size:,} bytes; "
            f"the limit is {MAX_JSON_BYTES:,}.",
            hint=SAVE_AGAIN,
        )
    try:
        return _bytes(archive, records[name]).decode()
    except UnicodeDecodeError as error:
        malformed(f"Its record {quoted(name)} is no text ({error}).")


def _bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        malformed(f"Its record {quoted(entry.filename)} cannot be read ({error}).")


def _json(archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], name: str) -> dict[str, Any]:
    try:
        value = json.loads(_text(archive, records, name))
    except (ValueError, RecursionError) as error:
        malformed(f"Its record {quoted(name)} is not JSON ({error}).")
    if not isinstance(value, dict):
        malformed(f"Its record {quoted(name)} is not a JSON object.")
    return value


def _payloads(
    archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], config: str, folder: str
) -> dict[str, Payload]:
    entries = _json(archive, records, config).get("config")
    if not isinstance(entries, dict):
        malformed(f"Its record {quoted(config)} has no config.")
    return {str(name): _payload(str(name), entry, records, folder) for name, entry in entries.items()}


def _payload(name: str, entry: Any, records: dict[str, zipfile.ZipInfo], folder: str) -> Payload:
    if not isinstance(entry, dict) or not re.fullmatch(r"[\w.]{1,500}", name):
        malformed(f"The stored tensor {quoted(name)} is not described as one.")
    path = str(entry.get("path_name"))
    if entry.get("use_pickle") is not False:
        unsafe(f"The tensor {quoted(name)} is stored as a pickle ({quoted(path)}).", layer=name)
    if not re.fullmatch(r"(weight|tensor)_\d{1,9}", path):
        unsafe(
            f"The tensor {quoted(name)} is stored as {quoted(path)}, which is not a plain tensor.", layer=name
        )
    if folder + path not in records:
        malformed(f"The bytes of {quoted(name)} ({quoted(path)}) are missing.", layer=name)
    return Payload(folder + path, entry.get("is_param") is True, _tensor_meta(name, entry.get("tensor_meta")))


def _tensor_meta(name: str, meta: Any) -> dict[str, Any]:
    """The meta data rebuilt from plain numbers, on the CPU."""
    if not isinstance(meta, dict) or meta.get("dtype") not in ITEM_BYTES or meta.get("layout") != 7:
        malformed(f"The tensor {quoted(name)} has no plain type and layout.", layer=name)
    sizes, strides = (_numbers(name, meta.get(key)) for key in ("sizes", "strides"))
    (offset,) = _numbers(name, [meta.get("storage_offset")])
    if len(sizes) > MAX_AXES:
        malformed(f"The tensor {quoted(name)} has {len(sizes):,} axes; {MAX_AXES} is the limit.", layer=name)
    if len(sizes) != len(strides):
        malformed(f"The tensor {quoted(name)} has {len(sizes)} sizes and {len(strides)} strides.", layer=name)
    return {
        "dtype": meta["dtype"],
        "sizes": [{"as_int": size} for size in sizes],
        "requires_grad": meta.get("requires_grad") is True and meta["dtype"] in FLOATS,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": stride} for stride in strides],
        "storage_offset": {"as_int": offset},
        "layout": 7,
    }


def _numbers(name: str, values: Any) -> list[int]:
    if isinstance(values, list):
        plain = [value.get("as_int") if isinstance(value, dict) else None for value in values]
        if all(type(value) is int and 0 <= value < 2**40 for value in plain):
            return [value for value in plain if value is not None]
    malformed(f"The tensor {quoted(name)} has sizes that are not plain numbers.", layer=name)


def _check_payload(name: str, payload: Payload, stored: int) -> None:
    """Every number that the meta data reaches lies in the stored bytes."""
    sizes, strides, offset = payload.extent()
    item = ITEM_BYTES[payload.meta["dtype"]]
    elements = math.prod(sizes)
    if stored % item:
        malformed(
            f"The tensor {quoted(name)} of shape {tuple(sizes)} has {stored:,} bytes, "
            f"numbers of {item} bytes are expected.",
            layer=name,
        )
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1
    if elements and max(last, elements) * item > stored:
        malformed(
            f"The tensor {quoted(name)} of shape {tuple(sizes)} needs {max(last, elements) * item} bytes, "
            f"{stored} are stored.",
            layer=name,
        )
