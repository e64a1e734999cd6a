"""Every reader of ours on valid files changed a little: it returns, or raises its own documented error.

A crash, another exception, or more than a bounded time and memory fails the test with the file's outcome.
`make test-hostile` runs it (`BASISCONV_HOSTILE_EXAMPLES`, 25 unless told). What was found so far stands
in test_findings.py.
"""

import io
import json
import math
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_of

from app.core.errors import Problem
from app.datasets import sniff as datasets_sniff
from app.models import sniff as models_sniff
from app.storage.store import memory_store
from app.uploads.multipart import receive_upload
from basisconv.errors import MethodError
from basisconv.formats import onnx_reader, weights
from basisconv.formats.budget import Budget
from basisconv.formats.compare import check_import
from basisconv.formats.network import Network
from tests.data.making import class_folders, encode, npz_of, picture, tar_of, zip_of
from tests.formats.nets import compress, read_pt2, small_onnx, small_pt2
from tests.hostile.contained import contained
from tests.hostile.mutating import budget, bytes_of, json_of, message_of
from worker import messages
from worker.data.canonical import read_canonical
from worker.data.ingest import inspect_dataset
from worker.requested import Requested

pytestmark = pytest.mark.slow
SMALL = Budget(1e9, 1e9, 1e8)


def judge(call: Callable[[], object]) -> None:
    outcome = contained(call)
    assert outcome.is_allowed, f"{outcome.kind}: {outcome.detail}"


# Networks.


def read_onnx(data: bytes) -> None:
    check_import(onnx_reader.load(data, budget=SMALL))


@cache
def onnx_model() -> Any:
    import onnx

    return onnx.load_model_from_string(small_onnx())


@budget()
@given(data=bytes_of(small_onnx()))
def test_onnx_files_with_changed_bytes(data: bytes) -> None:
    judge(lambda: read_onnx(data))


@budget(3)
@given(st.data())
def test_onnx_files_with_changed_fields(data: st.DataObject) -> None:
    model = data.draw(message_of(onnx_model()))
    judge(lambda: read_onnx(model.SerializeToString()))


def records() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(small_pt2())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def stored(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@budget()
@given(data=bytes_of(small_pt2()))
def test_pt2_archives_with_changed_bytes(data: bytes) -> None:
    judge(lambda: read_pt2(data))


@pytest.mark.parametrize("record", ["models/model.json", "model_weights_config.json"])
@budget(1.5)
@given(data=st.data())
def test_pt2_archives_with_changed_documents(record: str, data: st.DataObject) -> None:
    contents = records()
    name = next(name for name in contents if name.endswith(record))
    document = data.draw(json_of(json.loads(contents[name])))
    contents[name] = json.dumps(document).encode()
    judge(lambda: read_pt2(stored(contents)))


@cache
def network() -> Network:
    return onnx_reader.load(small_onnx())


@cache
def exported() -> tuple[bytes, dict[str, Any]]:
    """The weights and the recipe of a compressed network."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = weights.write(network(), compress(network()), Path(folder, "w"))
        return Path(folder, "w").read_bytes(), recipe


def read_weights(tensors: bytes, recipe: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "w").write_bytes(tensors)
        Path(folder, "r").write_bytes(recipe)
        weights.read(network(), Path(folder, "w"), Path(folder, "r"))


@budget()
@given(st.data())
def test_recipes_with_changed_values(data: st.DataObject) -> None:
    tensors, recipe = exported()
    changed = json.dumps(data.draw(json_of(recipe))).encode()
    judge(lambda: read_weights(tensors, changed))


@budget()
@given(st.data())
def test_safetensors_with_changed_bytes(data: st.DataObject) -> None:
    tensors, recipe = exported()
    changed = data.draw(bytes_of(tensors))
    judge(lambda: read_weights(changed, json.dumps(recipe).encode()))


# Data sets.


def inspect(data: bytes, form: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "upload").write_bytes(data)
        task = {"task": "inspect_dataset", "file": "upload", "format": form, "canonical": "canonical"}
        inspect_dataset(task, Path(folder), lambda _: None)


X = np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3)


@cache
def npz(packed: bool) -> bytes:
    if packed:
        return npz_of(x=X, y=np.arange(10) % 2)
    buffer = io.BytesIO()
    np.savez(buffer, x=np.asfortranarray(X), y=np.arange(10) % 2)
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [True, False])
@budget(2)
@given(data=st.data())
def test_npz_files_with_changed_bytes(packed: bool, data: st.DataObject) -> None:
    changed = data.draw(bytes_of(npz(packed)))
    judge(lambda: inspect(changed, "npz"))


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (10, 4, 4, 3), }"


@budget(2)
@given(text=bytes_of(HEADER.encode()))
def test_npy_headers_with_changed_letters(text: bytes) -> None:
    member = b"\x93NUMPY\x01\x00" + min(len(text), 65_535).to_bytes(2, "little") + text[:65_535] + X.tobytes()
    judge(lambda: inspect(zip_of({"x.npy": member}), "npz"))


ARCHIVES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda files: tar_of(files, "w:gz"),
    "tar.xz": lambda files: tar_of(files, "w:xz"),
}


@pytest.mark.parametrize("form", ARCHIVES)
@budget()
@given(data=st.data())
def test_archives_with_changed_bytes(form: str, data: st.DataObject) -> None:
    changed = data.draw(bytes_of(ARCHIVES[form](class_folders(2))))
    judge(lambda: inspect(changed, "images"))


NAMES = st.text(st.sampled_from("ab/.\\\0: <>\u202e"), max_size=12) | st.text(max_size=40)


@pytest.mark.parametrize("form", ["zip", "tar"])
@budget()
@given(names=st.lists(NAMES, min_size=1, max_size=5))
def test_archives_of_any_names(form: str, names: list[str]) -> None:
    files = {f"{name}.png": encode(picture(3, 3)) for name in names}
    packed = b""
    with suppress(ValueError, UnicodeError):  # names that the packer itself refuses
        packed = ARCHIVES[form](files)
    judge(lambda: inspect(packed, "images"))


FORMS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP"}


@pytest.mark.parametrize("suffix", FORMS)
@budget()
@given(data=st.data())
def test_images_with_changed_bytes(suffix: str, data: st.DataObject) -> None:
    image = data.draw(bytes_of(encode(picture(9, 9), FORMS[suffix])))
    files = class_folders(1) | {f"cat/odd.{suffix}": image}
    judge(lambda: inspect(zip_of(files), "images"))


@budget()
@given(st.data())
def test_canonical_files_with_changed_bytes(data: st.DataObject) -> None:
    """Only we write them; a torn one is a ValueError, by its own word."""
    tensors = {"train_x": __import__("torch").zeros(3, 4), "test_y": __import__("torch").zeros(2).long()}
    changed = data.draw(bytes_of(safetensors_of(tensors, {"basisconv": "{}"})))

    def read() -> None:
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(changed)
            with suppress(ValueError):
                read_canonical(Path(file.name))

    judge(read)


# What comes before any reader: sniffers, forms and fields.

STARTS = (b"", b"PK\x03\x04", b"\x80\x04", b"\x93NUMPY", b"\x08\x08", b"\x1f\x8b", b"PAR1", b"{", b"(")


@budget(20)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=400), name=st.text(max_size=30))
def test_sniffers_on_any_bytes(start: bytes, rest: bytes, name: str) -> None:
    for sniff in (models_sniff.sniff, datasets_sniff.sniff):
        with suppress(Problem):
            sniff(start + rest, name)


@budget(10)
@given(data=bytes_of(small_onnx()) | bytes_of(small_pt2()) | bytes_of(npz(True)), name=st.text(max_size=30))
def test_sniffers_on_changed_files(data: bytes, name: str) -> None:
    for sniff in (models_sniff.sniff, datasets_sniff.sniff):
        with suppress(Problem):
            sniff(data[:65_536], name)


FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\nnet\r\n'
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="net.onnx"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(200)) + b"\r\n--edge--\r\n"
)


async def receive(body: bytes, content_type: bytes, step: int) -> None:
    """The body in pieces, as a server hands it over."""
    pieces = [body[i : i + step] for i in range(0, len(body), step)] or [b""]
    said = iter(
        [
            {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)}
            for i, piece in enumerate(pieces)
        ]
    )

    async def take() -> Any:
        return next(said, {"type": "http.disconnect"})

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}
    with suppress(Problem):
        names = frozenset({"name", "input"})
        await receive_upload(Request(scope, take), memory_store(), 10_000, names, models_sniff.sniff)


@budget(10)
@given(
    body=bytes_of(FORM),
    content_type=bytes_of(b"multipart/form-data; boundary=edge", 1)
    | st.just(b"multipart/form-data; boundary=edge"),
    step=st.sampled_from((1, 7, 100, 100_000)),
)
def test_forms_with_changed_bytes(body: bytes, content_type: bytes, step: int) -> None:
    anyio.run(receive, body, content_type, step)


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


SAID = {
    "shape": [3, 32, 32],
    "scale": 255,
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "layout": "NCHW",
    "resize": 40,
    "crop": 32,
}


@budget(10)
@given(said=json_of(SAID))
def test_what_is_said_of_the_input(said: Any) -> None:
    with suppress(Problem):
        requested = Requested(said if isinstance(said, dict) else {})
        requested.complete(network())


MESSAGE = {"type": "progress", "fraction": 0.5, "epoch": 1, "eta_seconds": 2.0, "message": "x"}


@budget(10)
@given(message=json_of(MESSAGE), rest=st.binary(max_size=20))
def test_what_a_child_says(message: Any, rest: bytes) -> None:
    for line in (json.dumps(message).encode(), json.dumps(message).encode() + rest, rest):
        with suppress(messages.NotAMessage):
            messages.parse(line)


def test_a_reader_that_fails_otherwise_is_noticed() -> None:
    """Or all of the above would prove nothing."""

    def refuse() -> None:
        raise MethodError("malformed_model", "no")

    def loop() -> None:
        while True:
            pass

    assert contained(refuse).is_allowed
    assert not contained(lambda: 1 / 0).is_allowed
    assert contained(lambda: __import__("os").abort()).detail == "SIGABRT"
    assert contained(lambda: bytearray(1 << 40)).detail == "out_of_memory"
    assert math.isfinite(SMALL.macs)
