"""Hugging Face model folders: the network of the configuration with exactly its weights, nobody's code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from app.core.errors import MalformedModel, Problem, UnsafeSerialization, UnsupportedFormat
from app.models.sniff import sniff
from basisconv.formats import huggingface, pt2_reader
from basisconv.formats.huggingface_input import read_input
from tests.data.making import tar_of, zip_of
from tests.formats.test_inspection import inspect
from tests.support.folders import SIDE, SMALL, files, network, pickled, sharded

SHAPE = [3, SIDE, SIDE]


def own_answers(kind: str, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = network(kind)(pixel_values=images).logits
    return scores


def our_answers(folder: Path, images: torch.Tensor) -> torch.Tensor:
    loaded = pt2_reader.load(folder / "canonical")
    with torch.no_grad():
        scores: torch.Tensor = loaded.module(images)
    return scores


def test_every_known_architecture_has_a_small_network_here() -> None:
    assert set(SMALL) == set(huggingface.KNOWN)


@pytest.mark.parametrize("kind", ["resnet", "convnext"])
def test_a_folder_answers_as_transformers_own_network_does(tmp_path: Path, kind: str) -> None:
    result = inspect(tmp_path, zip_of(files(kind)), "huggingface")
    images = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(our_answers(tmp_path, images), own_answers(kind, images), rtol=1e-4, atol=1e-5)
    assert result["summary"]["outputs"] == [10]
    assert result["details"]["architecture"] == kind
    names = {layer["name"].removesuffix("_layer") for layer in result["layers"]}
    stored = set(network(kind).state_dict())
    assert names <= stored | {name.removesuffix(".weight") for name in stored}
    assert {path.name for path in tmp_path.iterdir()} <= {"upload", "canonical", "exported"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(SMALL) - {"resnet", "convnext"}))
def test_every_other_architecture_does_so_too(tmp_path: Path, kind: str) -> None:
    test_a_folder_answers_as_transformers_own_network_does(tmp_path, kind)


@pytest.mark.parametrize("pack", [zip_of, tar_of, lambda found: tar_of(found, "w:gz")])
def test_the_folder_may_lie_in_another_and_its_weights_in_shards(
    tmp_path: Path, pack: Callable[[Any], bytes]
) -> None:
    packed = pack({f"my-model/{name}": data for name, data in sharded().items()})
    assert sniff(packed[:65_536], "m") == "huggingface"
    inspect(tmp_path, packed, "huggingface")
    images = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(
        our_answers(tmp_path, images), own_answers("resnet", images), rtol=1e-4, atol=1e-5
    )


def test_the_preprocessor_gives_the_input_and_the_uploader_goes_before_it(tmp_path: Path) -> None:
    packed = zip_of(files())
    found = inspect(tmp_path, packed, "huggingface")["input"]
    assert found == {
        "shape": SHAPE,
        "scale": 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
        "resize": 36,
        "crop": 32,
        "interpolation": "bicubic",
    }
    changed = inspect(tmp_path, packed, "huggingface", shape=[3, 40, 48], scale=1)["input"]
    assert (changed["shape"], changed["scale"], changed["resize"], changed["crop"]) == (
        [3, 40, 48],
        1,
        None,
        None,
    )


VIT = {"size": {"height": 48, "width": 64}, "resample": 2, "do_normalize": False}
MOBILE = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
OLD = {"size": 224, "feature_extractor_type": "ConvNextFeatureExtractor"}
LARGE = {"size": {"shortest_edge": 384}, "crop_pct": 1.0}
EFFICIENT = {
    "size": {"height": 10, "width": 10},
    "crop_size": {"height": 9, "width": 9},
    "do_center_crop": False,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "include_top": True,
    "image_mean": [0.0] * 3,
    "image_std": [0.5] * 3,
}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, {"interpolation": "bilinear"}),
        (VIT, {"interpolation": "bilinear", "shape": [3, 48, 64]}),
        (MOBILE, {"interpolation": "bilinear", "shape": [3, 224, 224], "resize": 256, "crop": 224}),
        (OLD, {"interpolation": "bilinear", "shape": [3, 224, 224], "resize": 256, "crop": 224}),
        (LARGE, {"interpolation": "bilinear", "shape": [3, 384, 384]}),
        (
            EFFICIENT,
            {
                "interpolation": "bilinear",
                "shape": [3, 10, 10],
                "scale": 127.5,
                "mean": [1.0] * 3,
                "std": [0.25] * 3,
            },
        ),
        ({"do_rescale": False, "size": 32}, {"interpolation": "bilinear", "scale": 1, "shape": SHAPE}),
    ],
)
def test_processors_of_all_kinds_are_understood(told: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read_input(told, 3) == expected


def without(name: str) -> dict[str, bytes]:
    found = files()
    del found[name]
    return found


def with_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> dict[str, bytes]:
    found = files()
    state = load(found["model.safetensors"])
    change(state)
    return found | {"model.safetensors": save(state)}


def other_preprocessor(**told: Any) -> dict[str, bytes]:
    return files() | {"preprocessor_config.json": json.dumps(told).encode()}


STEM = "resnet.embedder.embedder.convolution.weight"
REFUSED: dict[str, tuple[Callable[[], dict[str, bytes]], type[Problem], str]] = {
    "unknown": (lambda: files(model_type="vit"), UnsupportedFormat, "a 'vit'; known are convnext, .*resnet"),
    "remote": (lambda: files(auto_map={"AutoModel": "m.M"}), UnsafeSerialization, r"code of its own \(auto"),
    "trust": (lambda: files(trust_remote_code=True), UnsafeSerialization, "trust_remote_code"),
    "pickled": (
        lambda: without("model.safetensors") | {"pytorch_model.bin": pickled()},
        UnsafeSerialization,
        "pytorch_model.bin only",
    ),
    "no weights": (lambda: without("model.safetensors"), MalformedModel, "no model.safetensors"),
    "no config": (lambda: without("config.json"), UnsupportedFormat, "no config.json; it holds"),
    "two": (
        lambda: {f"{top}/{name}": data for top in "ab" for name, data in files().items()},
        MalformedModel,
        "two model folders: a and b",
    ),
    "not JSON": (lambda: files() | {"config.json": b"{"}, MalformedModel, "config.json is not JSON"),
    "deep": (lambda: files() | {"config.json": b"[" * 100_000}, MalformedModel, "is not JSON"),
    "a list": (lambda: files() | {"config.json": b"[]"}, MalformedModel, "holds no object"),
    "cut": (
        lambda: files() | {"model.safetensors": files()["model.safetensors"][:1000]},
        MalformedModel,
        "cannot be read as safetensors",
    ),
    "huge": (
        lambda: files(hidden_sizes=[60_000] * 64, depths=[1] * 64),
        MalformedModel,
        "asks for more than .* numbers; the file holds",
    ),
    "endless": (
        lambda: files(hidden_sizes=[1] * 64, depths=[60_000] * 64),
        MalformedModel,
        "asks for more than .*; the file holds",
    ),
    "large": (lambda: files(depths=[10**12, 1]), MalformedModel, "depths in config.json is 1000000000000"),
    "of text": (lambda: files(depths="many"), MalformedModel, "depths in config.json is 'many'"),
    "long": (lambda: files(depths=[1] * 100), MalformedModel, "has 100 items; 64 is the limit"),
    "activation": (lambda: files(hidden_act="exec"), MalformedModel, "describes no network of the kind"),
    "negative": (lambda: files(hidden_sizes=[-4, -4]), MalformedModel, "describes no network"),
    "classes": (lambda: files(id2label=None, num_labels=10**9), MalformedModel, "has 1000000000 classes"),
    "missing": (
        lambda: with_weights(lambda state: [state.pop(name) for name in (STEM, "classifier.1.bias")]),
        MalformedModel,
        f"2 are missing \\({STEM}, classifier.1.bias\\)",
    ),
    "another": (
        lambda: with_weights(lambda state: state.update({STEM: torch.zeros(1), "x": torch.zeros(1)})),
        MalformedModel,
        r"1 are not known \(x\); 1 are of another shape .*is \[1\] instead of \[16, 3, 7, 7\]",
    ),
    "quantised": (
        lambda: with_weights(lambda state: state.update({STEM: state[STEM].to(torch.int8)})),
        MalformedModel,
        "is int8",
    ),
    "NaN": (
        lambda: with_weights(lambda state: state.update({STEM: state[STEM] * float("nan")})),
        MalformedModel,
        "NaN",
    ),
    "std": (
        lambda: other_preprocessor(image_std=[0, 1, 1]),
        MalformedModel,
        "preprocessor_config.json: .*std",
    ),
    "tall": (
        lambda: other_preprocessor(size={"height": 60_000, "width": 60_000}),
        MalformedModel,
        "more than 100,000,000",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    make, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said) as refused:
        inspect(tmp_path, zip_of(make()), "huggingface")
    assert refused.value.hint


def test_what_the_library_would_look_up_or_download_is_not_handed_on(tmp_path: Path) -> None:
    config = {
        "attn_implementation": "somebody/kernels",
        "_attn_implementation": "somebody/kernels",
        "dtype": "nonsense",
        "quantization_config": {"quant_method": "somebody"},
        "_commit_hash": "x",
        "name_or_path": "somebody/model",
    }
    assert inspect(tmp_path, zip_of(files(**config)), "huggingface")["details"]["architecture"] == "resnet"


def test_half_precision_and_files_without_counters_are_read(tmp_path: Path) -> None:
    def halve(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            if name.endswith("num_batches_tracked"):
                del state[name]
            else:
                state[name] = state[name].to(torch.bfloat16)

    inspect(tmp_path, zip_of(with_weights(halve)), "huggingface")
    images = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(
        our_answers(tmp_path, images), own_answers("resnet", images), rtol=0.05, atol=0.05
    )
