"""What changed files have brought down once: each is refused now, in words, by its reader.

Files of these kinds whose harm is time or memory are in the corpus.
"""

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from basisconv.errors import MethodError
from basisconv.formats import onnx_reader
from basisconv.formats.compare import check_import
from tests.data.making import class_folders, outcome, tar_of, zip_of
from tests.formats.nets import conv, conv_weights, edited, graph, read_pt2, rezipped, small_pt2

GRAPH = "models/model.json"


def refused(read: Callable[[], object], code: str = "malformed_model") -> MethodError:
    with pytest.raises(MethodError) as caught:
        read()
    assert caught.value.code == code
    assert caught.value.hint
    return caught.value


def refused_onnx(model: ModelProto, code: str = "malformed_model") -> MethodError:
    return refused(lambda: check_import(onnx_reader.load(model.SerializeToString())), code)


@pytest.mark.parametrize("opset", [0, -1, 1 << 62])
def test_an_opset_that_is_none(opset: int) -> None:
    model = graph([conv()], conv_weights())
    model.opset_import[0].version = opset
    assert f"opset {opset:,}" in str(refused_onnx(model))


def test_whole_numbers_that_their_bytes_do_not_hold() -> None:
    """Only weights in floats were looked at."""
    nodes = [conv(target="c"), helper.make_node("Reshape", ["c", "s"], ["y"], "flat")]
    model = graph(nodes, conv_weights() | {"s": np.array([0, -1])})
    model.graph.initializer[2].raw_data = bytes(15)
    assert refused_onnx(model).layer == "flat"


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.INT4])
def test_weights_of_a_type_that_the_importer_has_not(kind: int) -> None:
    model = graph([conv()], conv_weights())
    model.graph.initializer[0].data_type = kind
    refused_onnx(model, "unsupported_operator")


def test_a_function_that_calls_itself() -> None:
    body = [helper.make_node("f", ["a"], ["b"], domain="here")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    nodes = [conv(target="c"), helper.make_node("f", ["c"], ["y"], domain="here")]
    model = graph(nodes, conv_weights(), domains=["here"])
    model.functions.append(helper.make_function("here", "f", ["a"], ["b"], body, opsets))
    refused_onnx(model)


def test_a_network_that_answers_nothing_finite() -> None:
    """The difference from our copy was NaN, which is neither small nor large."""
    weights = conv_weights()
    weights["conv.w"][:] = 3e38
    assert refused_onnx(graph([conv()], weights)).layer == "conv"


# .pt2


@pytest.mark.parametrize("value", ["x", [], {}, None])
def test_a_float_that_is_none(value: object) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["sym_float_values"] = {"f0": {"as_float": value}}

    refused(lambda: read_pt2(edited(small_pt2(), GRAPH, change)))


def test_weights_that_are_cut_within_a_number() -> None:
    def cut(records: dict[str, bytes]) -> None:
        name = next(name for name in records if name.endswith("weights/weight_0"))
        records[name] += b"\0"

    refused(lambda: read_pt2(rezipped(small_pt2(), cut)))


def test_weights_whose_checksum_is_wrong() -> None:
    data = bytearray(small_pt2())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("weights/weight_0"))
        name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
    data[entry.header_offset + 30 + name + extra] ^= 1
    refused(lambda: read_pt2(bytes(data)))


# Archives.


def refused_images(folder: Any, data: bytes) -> str:
    found = outcome(folder, data, "images")
    assert not isinstance(found, dict)
    assert found.code == "malformed_dataset"
    assert found.hint
    return found.detail


def test_a_directory_that_ends_within_an_extra_field(tmp_path: Any) -> None:
    """zipfile raises struct.error of it."""
    data = bytearray(zip_of(class_folders()))
    entry = data.index(b"PK\x01\x02")
    (name,) = struct.unpack("<H", data[entry + 28 : entry + 30])
    at = entry + 46 + name - 6  # the name's end becomes an extra field: Zip64, with less than it says
    data[entry + 28 : entry + 32] = struct.pack("<HH", name - 6, 6)
    data[at : at + 6] = struct.pack("<HHH", 1, 2, 0)
    data[entry + 24 : entry + 28] = b"\xff" * 4
    refused_images(tmp_path, bytes(data))


def test_a_member_that_unfolds_into_more_than_it_says(tmp_path: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in class_folders().items():
            archive.writestr(name, content + bytes(100_000_000 if name == "cat/0.png" else 0))
    data = bytearray(buffer.getvalue())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 500)
    assert "cat/0.png" in refused_images(tmp_path, bytes(data))


def test_a_tar_member_of_negative_size(tmp_path: Any) -> None:
    data = bytearray(tar_of(class_folders()))
    data[124:136] = b"\xff" * 11 + b"\x00"  # the size, in the binary form: -256
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    refused_images(tmp_path, bytes(data))
