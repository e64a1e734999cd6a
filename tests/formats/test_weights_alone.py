"""Weights alone with the name of their network: the usual keys, wrappers taken off, nothing but weights."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from app.core.errors import MalformedModel, Problem, UnsafeSerialization, UnsupportedFormat
from app.models import architectures as listed
from basisconv.formats import architectures, checkpoint, pt2_reader
from tests.support import networks
from tests.support.networks import NO_DATA, has_data
from worker.first_look import inspect_model

State = dict[str, torch.Tensor]
TORCHVISION = {  # numbers of parameters that torchvision publishes, for 1000 classes
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "mobilenet_v2": 3_504_872,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
}


def drawn(depth: int = 20, classes: int = 10, shortcut: str = "B", channels: int = 3) -> State:
    torch.manual_seed(0)
    network = networks.CifarResNet(depth, classes, shortcut)
    state = network.state_dict()
    if channels != 3:
        state["conv1.weight"] = torch.randn(16, channels, 3, 3)
    return state


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def inspect(folder: Path, data: bytes, name: str | None = "cifar_resnet20", **said: Any) -> dict[str, Any]:
    (folder / "upload").write_bytes(data)
    task = {"file": "upload", "canonical": "canonical", "format": "weights", "input": said}
    return inspect_model(task | {"task": "inspect_model", "architecture": name}, folder, lambda _: None)


def answers(folder: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = pt2_reader.load(folder / "canonical").module(images)
    return scores


def test_what_the_service_lists_is_what_can_be_built() -> None:
    assert set(listed.KNOWN) == set(architectures.KNOWN)
    for name, one in listed.KNOWN.items():
        built = architectures.KNOWN[name]
        assert (one.side, one.first, one.heads) == (built.side, built.first, built.heads)


@pytest.mark.parametrize("name", TORCHVISION)
def test_each_network_has_as_many_parameters_as_torchvisions(name: str) -> None:
    known = architectures.KNOWN[name]
    with torch.device("meta"):
        told = {known.first: torch.empty(1, 3, 1, 1), known.heads[0]: torch.empty(1000, 1)}
        network = known.make(told, name)
        assert sum(p.numel() for p in network.parameters()) == TORCHVISION[name]
        assert network.eval()(torch.empty(2, 3, known.side, known.side)).shape == (2, 1000)
    assert {known.first, known.heads[0]} <= set(network.state_dict())


KEYS = {
    "resnet50": ("layer1.0.downsample.1.running_var", "layer4.2.bn3.bias", "layer3.5.conv3.weight"),
    "mobilenet_v2": ("features.1.conv.0.0.weight", "features.2.conv.2.weight", "features.18.1.bias"),
    "densenet121": (
        *("features.denseblock4.denselayer16.conv2.weight", "features.transition3.conv.weight"),
        "features.norm5.weight",
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_torchvisions_own_keys_are_the_keys(name: str) -> None:
    with torch.device("meta"):
        assert set(KEYS[name]) <= set(_on_meta(name).state_dict())


def _on_meta(name: str) -> torch.nn.Module:
    known = architectures.KNOWN[name]
    return known.make({known.first: torch.empty(1, 3, 1, 1), known.heads[0]: torch.empty(7, 1)}, name)


@pytest.mark.parametrize(("shortcut", "pack"), [("A", save), ("B", pickled)])
def test_weights_answer_as_the_network_that_they_were_taken_from(
    tmp_path: Path, shortcut: str, pack: Callable[[State], bytes]
) -> None:
    torch.manual_seed(1)
    network = networks.CifarResNet(20, 7, shortcut).eval()
    result = inspect(tmp_path, pack(network.state_dict()))
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(answers(tmp_path, images), network(images), rtol=1e-4, atol=1e-5)
    assert (result["input"]["shape"], result["summary"]["outputs"]) == ([3, 32, 32], [7])
    assert result["details"]["architecture"] == "cifar_resnet20"
    assert "layer3.2.conv2" in {layer["name"] for layer in result["layers"]}


@pytest.mark.data
@pytest.mark.skipif(not has_data(), reason=NO_DATA)
@pytest.mark.parametrize("name", ["cifar10_resnet20_a", "cifar100_resnet20_b"])
def test_real_trained_weights_are_read(tmp_path: Path, name: str) -> None:
    path = networks.data_root() / "cifar_resnets" / f"{name}.safetensors"
    inspect(tmp_path, path.read_bytes())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = networks.load(name)(images)
    torch.testing.assert_close(answers(tmp_path, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 7, "best": 0.9},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "args": None},
        lambda state: {"module.model." + name: value for name, value in state.items()},
        lambda state: {"checkpoint": 1, "net": {"state_dict": state}},
    ],
)
def test_what_training_scripts_put_around_weights_is_taken_off(
    tmp_path: Path, wrap: Callable[[State], Any]
) -> None:
    state = drawn()
    (tmp_path / "weights").write_bytes(pickled(wrap(state)))
    found = checkpoint.read(tmp_path / "weights")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_size_and_channels_of_the_image_may_be_others(tmp_path: Path) -> None:
    result = inspect(tmp_path, save(drawn(channels=1)), shape=[1, 48, 40], mean=[0.5])
    assert result["input"]["shape"] == [1, 48, 40]
    assert result["input"]["mean"] == [0.5]


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def changed(**values: torch.Tensor) -> bytes:
    return pickled(drawn() | values)


REFUSED: dict[str, tuple[Callable[[], bytes], str, type[Problem], str]] = {
    "another": (
        lambda: save(drawn(56)),
        "cifar_resnet20",
        MalformedModel,
        r"do not fit cifar_resnet20, which has 128 tensors: 180 are not known \(layer1.3.bn1.bias",
    ),
    "smaller": (
        lambda: save(drawn(20)),
        "cifar_resnet56",
        MalformedModel,
        r"180 are missing \(layer1.3.conv1.weight",
    ),
    "other kind": (lambda: save(drawn()), "vgg16", MalformedModel, "no classifier.6.weight, which vgg16 has"),
    "shapes": (
        lambda: changed(**{"bn1.weight": torch.ones(3), "layer1.0.bn1.bias": torch.ones(2)}),
        "cifar_resnet20",
        MalformedModel,
        r"2 are of another shape \(bn1.weight is \[3\] instead of \[16\]",
    ),
    "unknown": (lambda: save(drawn()), "alexnet", UnsupportedFormat, "no network that is known .alexnet."),
    "none": (lambda: save(drawn()), None, UnsupportedFormat, "no network that is known"),
    "module": (
        lambda: pickled(torch.nn.Linear(2, 2)),
        "resnet18",
        UnsafeSerialization,
        "more than weights, in a pickle",
    ),
    "harmful": (
        lambda: pickled({"state_dict": drawn(), "x": Harmful()}),
        "cifar_resnet20",
        UnsafeSerialization,
        "more than weights",
    ),
    "a list": (lambda: pickled([1, 2]), "resnet18", MalformedModel, "holds a list, not a table"),
    "numbers": (lambda: pickled({"a": 1, "b": "x"}), "resnet18", MalformedModel, "a table of int, str"),
    "cut": (lambda: pickled(drawn())[:5000], "cifar_resnet20", MalformedModel, "cannot be read as weights"),
    "repeated": (
        lambda: changed(**{"fc.weight": torch.zeros(1, 1).expand(900_000, 64)}),
        "cifar_resnet20",
        MalformedModel,
        "fc.weight repeats fewer stored numbers",
    ),
    "sparse": (
        lambda: changed(**{"fc.weight": torch.zeros(10, 64).to_sparse()}),
        "cifar_resnet20",
        MalformedModel,
        "fc.weight is sparse",
    ),
    "whole numbers": (
        lambda: changed(**{"fc.weight": torch.zeros(10, 64, dtype=torch.int8)}),
        "cifar_resnet20",
        MalformedModel,
        "is int8",
    ),
    "NaN": (
        lambda: changed(**{"fc.bias": torch.full((10,), float("nan"))}),
        "cifar_resnet20",
        MalformedModel,
        "NaN",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_number(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, name, kind, said = REFUSED[case]
    with pytest.raises(kind, match=f"(?i){said}") as refused:
        inspect(tmp_path, make(), name)
    assert refused.value.hint
    assert "executed" not in capsys.readouterr().out
