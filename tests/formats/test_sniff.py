"""What a file is, told from its first bytes, before anything is stored."""

import io
import os
import tarfile
import zipfile

import pytest

from app.core.errors import UnsafeSerialization, UnsupportedFormat
from app.models.sniff import HEAD_BYTES, sniff


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def onnx_bytes() -> bytes:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    out = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    return onnx.helper.make_model(graph, producer_name="anyone").SerializeToString()


def test_an_onnx_file_is_onnx_whatever_it_is_called() -> None:
    assert sniff(onnx_bytes(), "network.bin") == "onnx"


def test_an_onnx_file_longer_than_the_head_is_onnx() -> None:
    head = b"\x08\x08\x12\x07pytorch\x3a\xff\xff\xff\x7f" + os.urandom(1000)
    assert sniff(head, "big.onnx") == "onnx"


def test_weights_are_weights() -> None:
    assert sniff(b'\x60\0\0\0\0\0\0\0{"a":', "m") == "weights"
    assert sniff(zip_of("m/data.pkl", "m/version", "m/data/0"), "m.pth") == "weights"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_folders_of_hugging_face_are_told_from_data_sets_and_keras(mode: str) -> None:
    assert sniff(zip_of("config.json", "model.safetensors"), "m") == "huggingface"
    assert (
        sniff(zip_of("net/", "net/README.md", "net/config.json", "net/pytorch_model.bin"), "m")
        == "huggingface"
    )
    with pytest.raises(UnsupportedFormat, match="Keras"):
        sniff(zip_of("config.json", "model.weights.h5"), "m")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("net/config.json"))
    assert sniff(buffer.getvalue()[:HEAD_BYTES], "m.tar") == "huggingface"


def test_a_torch_export_archive_is_pt2() -> None:
    assert sniff(zip_of("m/data/weights/weight_0", "m/archive_format"), "m") == "pt2"


@pytest.mark.parametrize(
    "head",
    [
        b"\x80\x02}q\x00.",
        b"\x80\x05\x95\x00",
        b"cos\nsystem\n(S'ls'\ntR.",
        zip_of("serialized_exported_program.json", "serialized_state_dict.pt"),
    ],
)
def test_a_pickle_under_any_name_is_unsafe(head: bytes) -> None:
    with pytest.raises(UnsafeSerialization) as refused:
        sniff(head, "model.onnx")
    assert refused.value.hint


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n....", "Keras"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (zip_of("m/data/0", "m/code/__torch__.py"), "TorchScript"),
        (zip_of("metadata.json", "config.json", "model.weights.h5"), "Keras"),
        (zip_of("x.npy", "y.npy"), "npz"),
        (zip_of("cat/1.jpg"), "zip that holds"),
        (b"\x08\x01\x12\xf0\x10\n\x04", "starts with 08 01 12"),  # a TensorFlow SavedModel
        (b"<!DOCTYPE html><html>", "text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x93\x11\xf0random", "starts with 93 11"),
        (b"just some words", "starts with"),
    ],
)
def test_other_formats_are_named_in_the_refusal(head: bytes, what: str) -> None:
    with pytest.raises(UnsupportedFormat) as refused:
        sniff(head, "model.onnx")
    assert what in refused.value.detail
    assert refused.value.hint


def test_the_pickle_of_a_pt2s_sample_inputs_does_not_hide_what_the_file_is() -> None:
    nested = zip_of("m/data/weights/weight_0", "m/data/sample_inputs/model.pt") + zip_of("archive/data.pkl")
    assert sniff(nested, "m.pt2") == "pt2"


def test_random_bytes_are_refused() -> None:
    for seed in range(200):
        noise = bytes((seed * 37 + 11 * i * i + 5) % 256 for i in range(400))
        with pytest.raises((UnsupportedFormat, UnsafeSerialization)):
            sniff(noise[:HEAD_BYTES], "noise.onnx")
