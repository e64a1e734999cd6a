"""Networks of other tools, some of which run code when their own reader opens them."""

import io
import json
import marshal
import struct
import zipfile

from tests.hostile.corpus import Traps, add
from tests.hostile.corpus.payloads import pickled


def zip_of(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def keras_lambda(traps: Traps) -> bytes:
    """A .keras file whose Lambda layer holds marshalled byte code."""
    code = marshal.dumps(compile(traps.code, "layer", "exec"))
    config = {
        "class_name": "Lambda",
        "config": {"function": {"class_name": "__lambda__", "config": code.hex()}},
    }
    return zip_of(
        ("metadata.json", b'{"keras_version": "3.0.0"}'),
        ("config.json", json.dumps(config).encode()),
        ("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
    )


def saved_model(_: Traps) -> bytes:
    """A schema version and a MetaGraphDef, where ONNX has a version and the producer's name."""
    meta = b"\n\x04\x08\x01\x12\x00"
    return b"\x08\x01\x12" + bytes([len(meta)]) + meta


def frozen_graph(_: Traps) -> bytes:
    node = b"\n\x05image\x12\x0bPlaceholder"
    return b"\n" + bytes([len(node)]) + node


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


ONE = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
UNSUPPORTED = "unsupported_format"

add(
    "other formats",
    "Keras h5",
    lambda _: b"\x89HDF\r\n\x1a\n" + bytes(2000),
    UNSUPPORTED,
    filename="m.h5",
)
add(
    "other formats",
    "HDF5 behind a block of anything",
    lambda _: bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(99),
    UNSUPPORTED,
)
add(
    "other formats",
    "Keras with byte code in a Lambda",
    keras_lambda,
    UNSUPPORTED,
    filename="model.keras",
)
add("other formats", "SavedModel", saved_model, UNSUPPORTED, filename="saved_model.pb")
add(
    "other formats",
    "SavedModel in a zip",
    lambda t: zip_of(("m/saved_model.pb", saved_model(t))),
    UNSUPPORTED,
)
add(
    "other formats",
    "frozen TensorFlow graph",
    frozen_graph,
    "unsupported_format malformed_model",
    filename="graph.pb",
)
add(
    "other formats",
    "TensorFlow Lite",
    lambda _: b"\x1c\0\0\0TFL3" + bytes(200),
    UNSUPPORTED,
    filename="m.tflite",
)
add("other formats", "GGUF", lambda _: b"GGUF\x03\0\0\0" + bytes(200), UNSUPPORTED, filename="m.gguf")
add("other formats", "TensorRT engine", lambda _: b"ftrt" + bytes(200), UNSUPPORTED, filename="m.engine")
add(
    "other formats",
    "shared library",
    lambda _: b"\x7fELF\x02\x01\x01" + bytes(200),
    UNSUPPORTED,
    filename="m.so",
)
add("other formats", "Windows program", lambda _: b"MZ" + bytes(200), UNSUPPORTED, filename="m.exe")
add(
    "other formats", "shell script", lambda _: b"#!/bin/sh\ntouch /tmp/it-ran\n", UNSUPPORTED, filename="m.sh"
)
add("other formats", "HTML page", lambda _: b"<script>alert(1)</script>", UNSUPPORTED, filename="m.html")
add(
    "other formats",
    "Python wheel",
    lambda t: zip_of(("setup.py", t.code.encode())),
    UNSUPPORTED,
    filename="m.whl",
)
add(
    "other formats", "Paddle's pickle", lambda t: pickled(t, 2), "unsafe_serialization", filename="m.pdparams"
)
add("other formats", "nothing", lambda _: b"", UNSUPPORTED)
add("other formats", "one byte", lambda _: b"\x08", "unsupported_format malformed_model")
add("other formats", "a megabyte of zeros", lambda _: bytes(1 << 20), UNSUPPORTED)
add(
    "other formats",
    "safetensors with a header of 2^63",
    lambda _: struct.pack("<Q", 1 << 63) + b"{}",
    UNSUPPORTED,
)
add(
    "other formats",
    "safetensors with a header of 90 MB that is not there",
    lambda _: struct.pack("<Q", 90_000_000) + b'{"w":',
    "unsupported_format malformed_model",
    filename="m.safetensors",
)
add(
    "other formats",
    "safetensors nested deeply",
    lambda _: safetensors(b'{"w":' * 5000),
    "unsupported_format malformed_model",
    filename="m.safetensors",
)
add(
    "other formats",
    "safetensors without a network",
    lambda _: safetensors(json.dumps(ONE).encode(), bytes(8)),
    "unsupported_format malformed_model validation_failed",
    filename="m.safetensors",
)
