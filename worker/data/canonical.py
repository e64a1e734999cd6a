"""The canonical data set: one safetensors file, written in pieces and read through a memory map.

Uniform images: ``train_x``, ``test_x`` (uint8 N×H×W×C, or float32 N×C×H×W). Mixed sizes: ``train_blob``,
``test_blob`` (packed images end to end) with ``*_offsets`` (N + 1). Labels: ``train_y``, ``test_y`` (int64).
What the header's metadata says of them is JSON under the one key ``basisconv``.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from app.core.errors import ResourceLimit

Array = npt.NDArray[Any]
KEY: Final = "basisconv"
_NAMES: Final = {"uint8": "U8", "int64": "I64", "float32": "F32"}
_DTYPES: Final = {short: np.dtype(long) for long, short in _NAMES.items()}
_MAX_HEADER_BYTES: Final = 100_000_000  # the format's own bound
_ROOM_BYTES: Final = 4096  # for the tensors' own lines: eight of them take below 1 kB


class Region:
    """A tensor's place in the file, filled from front to back."""

    def __init__(self, fd: int, position: int, end: int) -> None:
        self._fd, self._position, self._end = fd, position, end

    def append(self, rows: Array) -> None:
        data = memoryview(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        if self._position + len(data) > self._end:
            raise ValueError("more rows than the tensor's shape has")
        self._position = _write_all(self._fd, data, self._position)


class CanonicalWriter:
    """Streams tensors into a safetensors file; the header, whose room is kept free, comes last.

    int64 tensors go first and blobs, whose length shows only at the end, last: so all stay aligned.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], *, limit_bytes: int | None = None) -> None:
        self.path, self.metadata = path, metadata
        self._limit_bytes = limit_bytes
        room = len(json.dumps(json.dumps(metadata))) + _ROOM_BYTES
        self._start = 8 + room + -room % 64
        self._end = self._start
        self._tensors: dict[str, tuple[str, list[int], int, int]] = {}
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_header()
        finally:
            os.close(self._fd)

    def reserve(self, name: str, dtype: str, shape: Sequence[int]) -> Region:
        """Room for a tensor of known shape, to be filled by appending."""
        begin = self._end
        self._grow(math.prod(shape) * np.dtype(dtype).itemsize)
        self._tensors[name] = (_NAMES[dtype], list(shape), begin, self._end)
        return Region(self._fd, begin, self._end)

    def add(self, name: str, array: Array) -> None:
        self.reserve(name, str(array.dtype), array.shape).append(array)

    def append_blob(self, name: str, data: bytes) -> int:
        """Add bytes to the blob at the file's end; gives the blob's length so far."""
        begin = self._tensors[name][2] if name in self._tensors else self._end
        position = self._end
        self._grow(len(data))
        _write_all(self._fd, memoryview(data), position)
        self._tensors[name] = ("U8", [self._end - begin], begin, self._end)
        return self._end - begin

    def _grow(self, size: int) -> None:
        self._end += size
        if self._limit_bytes is not None and self._end > self._limit_bytes:
            raise ResourceLimit(
                f"The decoded data set takes more than {self._limit_bytes:,} bytes, which is the limit.",
                hint="Send fewer images, or smaller ones.",
                limit=self._limit_bytes,
            )

    def _write_header(self) -> None:
        header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(self.metadata)}}
        for name, (dtype, shape, begin, end) in self._tensors.items():
            offsets = [begin - self._start, end - self._start]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        text = json.dumps(header).encode()
        room = self._start - 8
        if len(text) > room:
            raise ValueError(f"the header takes {len(text)} bytes and has room for {room}")
        os.ftruncate(self._fd, self._end)
        _write_all(self._fd, memoryview(room.to_bytes(8, "little") + text.ljust(room)), 0)


@dataclass(frozen=True)
class Canonical:
    """An opened canonical file: what its metadata says, and its tensors as memory maps."""

    metadata: dict[str, Any]
    tensors: dict[str, Array]


def read_canonical(path: Path) -> Canonical:
    """Map a canonical file. Raises ValueError when it is not one or is cut short."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(file.read(length))
    metadata = json.loads(header.pop("__metadata__")[KEY])
    tensors = {name: _map(path, 8 + length, size, entry) for name, entry in header.items()}
    return Canonical(metadata, tensors)


def _map(path: Path, start: int, size: int, entry: dict[str, Any]) -> Array:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if start + end > size or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path.name} is cut short")
    if end == begin:  # nothing to map
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start + begin, shape)


def _write_all(fd: int, data: memoryview, position: int) -> int:
    while len(data):
        written = os.pwrite(fd, data, position)
        data, position = data[written:], position + written
    return position
