"""The inspector answers with everything the contract asks of a network, or says what is wrong and where."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from app.core.errors import MalformedModel, Problem, UnsafeSerialization, UnsupportedFormat, ValidationFailed
from basisconv.formats import onnx_reader, pt2_reader
from tests.formats.nets import (
    conv,
    conv_weights,
    graph,
    images,
    small,
    small_onnx,
    small_pt2,
)
from worker.first_look import inspect_model


def inspect(folder: Path, data: bytes, kind: str, **requested: Any) -> dict[str, Any]:
    (folder / "upload").write_bytes(data)
    task = {
        "task": "inspect_model",
        "file": "upload",
        "format": kind,
        "input": requested,
        "canonical": "canonical",
    }
    messages: list[dict[str, Any]] = []
    result = inspect_model(task, folder, messages.append)
    json.dumps([messages, result], allow_nan=False)
    assert {message["type"] for message in messages} == {"progress"}
    return result


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_network_is_described_completely(kind: str, tmp_path: Path) -> None:
    result = inspect(tmp_path, small_onnx() if kind == "onnx" else small_pt2(), kind)
    assert result["canonical"] == "canonical"
    assert result["input"] == {
        "shape": [3, 12, 12],
        "scale": 255,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "layout": "NCHW",
        "resize": None,
        "crop": None,
        "interpolation": "bilinear",
    }
    assert result["summary"]["layers"] == len(result["layers"]) == 6
    assert result["summary"]["outputs"] == [5]
    convolutions = 3 * 8 * 9 * 144 + 8 * 8 * 9 * 144 + 8 * 9 * 144 + 8 * 12 * 9 * 36
    by_hand = convolutions + 12 * 16 + 16 * 5
    assert result["summary"]["macs"] == sum(layer["macs"] for layer in result["layers"]) == by_hand
    assert result["summary"]["params"] == sum(p.numel() for p in small().parameters())
    assert result["summary"]["compressible"] == sum(layer["compressible"] for layer in result["layers"])
    assert result["details"]["classifier"] is True
    assert (result["details"]["batch"], result["details"]["module_batch"]) == (None, None)


def test_layers_carry_the_files_own_names_and_a_reason(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in inspect(tmp_path, small_onnx(), "onnx")["layers"]}
    deep = rows["/deep/Conv"]
    assert (deep["compressible"], deep["reason"], deep["groups"]) == (False, "depthwise", 8)
    down = rows["/down/Conv"]
    assert (down["kind"], down["stride"], down["output_size"], down["max_rank"]) == (
        "conv2d",
        [2, 2],
        [6, 6],
        12,
    )


def test_the_canonical_onnx_is_the_same_network(tmp_path: Path) -> None:
    inspect(tmp_path, small_onnx(), "onnx")
    network = onnx_reader.load(tmp_path / "canonical")
    torch.testing.assert_close(network.module(images(2)), small()(images(2)))


def test_the_canonical_pt2_is_the_same_network(tmp_path: Path) -> None:
    inspect(tmp_path, small_pt2(), "pt2")
    network = pt2_reader.load(tmp_path / "canonical")
    torch.testing.assert_close(network.module(images(2)), small()(images(2)))


def test_what_the_uploader_says_wins(tmp_path: Path) -> None:
    data = graph([conv()], conv_weights(), shape=("n", 3, "h", "w")).SerializeToString()
    said = {"shape": [3, 20, 24], "scale": 1, "mean": [1, 2, 3], "std": [0.5, 1, 2], "resize": 32, "crop": 20}
    result = inspect(tmp_path, data, "onnx", **said, interpolation="nearest")
    assert {name: result["input"][name] for name in said} == said
    assert result["input"]["interpolation"] == "nearest"
    assert result["details"]["output_shapes"] == [[4, 18, 22]]
    assert result["details"]["classifier"] is False


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({"mean": [0.5]}, "mean"),
        ({"std": [1, 0, 1]}, "std"),
        ({"std": "1"}, "std"),
        ({"scale": 0}, "scale"),
        ({"scale": True}, "scale"),
        ({"shape": [3, 12]}, "shape"),
        ({"shape": [3, 0, 12]}, "shape"),
        ({"layout": "HWC"}, "layout"),
        ({"interpolation": "magic"}, "interpolation"),
        ({"resize": 10, "crop": 12}, "crop"),
        ({"sale": 3}, "sale"),
    ],
)
def test_a_wrong_wish_is_named_with_its_place(said: dict[str, Any], pointer: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed) as refused:
        inspect(tmp_path, small_onnx(), "onnx", **said)
    assert refused.value.extra["errors"][0]["pointer"] == f"#/input/{pointer}"


def test_a_shape_that_the_file_contradicts_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        inspect(tmp_path, small_onnx(), "onnx", shape=[1, 28, 28])
    assert refused.value.code == "validation_failed"


def test_a_name_that_lies_about_the_format_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="is onnx"):
        inspect(tmp_path, small_onnx(), "pt2")


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_whole_module_pickle_is_no_network_under_either_name(kind: str, tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "m.pt")
    with pytest.raises(UnsupportedFormat, match="is weights"):
        inspect(tmp_path, (tmp_path / "m.pt").read_bytes(), kind)


def test_a_whole_module_pickle_is_unsafe_as_weights(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "upload")
    task = {
        "task": "inspect_model",
        "file": "upload",
        "format": "weights",
        "architecture": "resnet18",
        "canonical": "canonical",
    }
    with pytest.raises(UnsafeSerialization, match=r"can run any code \(it asks for") as refused:
        inspect_model(task, tmp_path, print)
    assert "state_dict" in str(refused.value.hint)


def test_damage_is_told_with_its_layer(tmp_path: Path) -> None:
    weights = conv_weights()
    weights["conv.w"][0] = float("nan")
    with pytest.raises(MalformedModel) as refused:
        inspect(tmp_path, graph([conv()], weights).SerializeToString(), "onnx")
    assert refused.value.document()["layer"] == "conv"


def test_a_network_without_layers_is_refused(tmp_path: Path) -> None:
    data = graph([onnx.helper.make_node("Relu", ["x"], ["y"], "relu")], {}).SerializeToString()
    with pytest.raises(MalformedModel, match="no convolution"):
        inspect(tmp_path, data, "onnx")
