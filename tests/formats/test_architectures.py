"""Every architecture comes in as a file, is compressed and leaves as that file."""

import copy
import io
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from basisconv import DecomposeConfig, Factorized, count, decompose_, describe
from basisconv.formats import onnx_reader, onnx_writer, pt2_writer, verify
from basisconv.formats.compare import check_import, difference
from basisconv.formats.network import Network, as_tuple
from tests.formats.nets import pt2_of, read_pt2
from tests.support.architectures import IMAGES, build, inputs

ROUNDING = 1e-4
SHARE = 0.6
PT2 = ("resnext", "densenet", "mobilenet_v3", "unet", "pyramid")  # one export takes seconds
FILES = [*((name, "onnx") for name in IMAGES), *((name, "pt2") for name in PT2)]


def onnx_file(network: nn.Module, x: Tensor) -> bytes:
    """By the older exporter, which keeps batch norms apart."""
    buffer = io.BytesIO()
    with torch.no_grad():
        count = len(as_tuple(network(x)))
    names = [f"y{i}" for i in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (x,),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=names,
            dynamic_axes={name: {0: "n"} for name in ["x", *names]},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return buffer.getvalue()


@cache
def imported(name: str, kind: str) -> tuple[Network, fx.GraphModule]:
    """The file's network as it came, and compressed; what stays is moved a little, as fitting does."""
    original, x = build(name), inputs(name, 2)
    data = onnx_file(original, x) if kind == "onnx" else pt2_of(original, x=x)
    network = onnx_reader.load(data) if kind == "onnx" else read_pt2(data)
    compressed = copy.deepcopy(network.module)
    list(decompose_(compressed, x[:1], DecomposeConfig("weights", target_value=SHARE)))
    draw = torch.Generator().manual_seed(2)
    for parameter in compressed.parameters():
        parameter.data *= 1 + 0.1 * torch.rand(parameter.shape, generator=draw)
    return network, compressed


def answers(module: nn.Module, x: Tensor) -> list[NDArray[np.float32]]:
    with torch.no_grad():
        return [value.numpy() for value in as_tuple(module(x))]


def equal(found: Any, expected: list[NDArray[np.float32]]) -> bool:
    return all(difference(a, b) < ROUNDING for a, b in zip(found, expected, strict=True))


def pairs(module: nn.Module) -> dict[str, Factorized]:
    return {path: child for path, child in module.named_modules() if isinstance(child, Factorized)}


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_the_imported_network_has_the_same_layers_and_is_compressed_within_its_budget(
    name: str, kind: str
) -> None:
    network, compressed = imported(name, kind)
    original, x = build(name), inputs(name, 3)
    assert equal(answers(network.module, x), answers(original, x))
    rows = [
        [(r.kind, r.macs, r.reason, r.calls) for r in describe(m, x[:1])] for m in (original, network.module)
    ]
    assert Counter(rows[0]) == Counter(rows[1])
    before, after = count(network.module, x[:1]), count(compressed, x[:1])
    assert after.macs <= SHARE * before.macs
    assert pairs(compressed)


@pytest.mark.parametrize("name", IMAGES)
def test_onnx_comes_back_with_its_topology_and_the_compressed_answers(name: str) -> None:
    network, compressed = imported(name, "onnx")
    written = onnx_writer.write(network, compressed)
    onnx.checker.check_model(written, full_check=True)
    x = inputs(name, 3, seed=8)
    assert equal(next(verify.outputs_onnx(written, [x.numpy()])), answers(compressed, x))
    assert isinstance(network.source, onnx.ModelProto)
    before = [(node.name, node.op_type) for node in network.source.graph.node]
    after = [(node.name, node.op_type) for node in written.graph.node]
    split = {node for path in pairs(compressed) for node in network.nodes[path]}
    expected = [
        (f"{node}/{part}" if part else node, op)
        for node, op in before
        for part in (("first", "second") if node in split else ("",))
    ]
    assert after == expected


@pytest.mark.parametrize("name", PT2)
def test_pt2_comes_back_as_pt2_and_leaves_as_onnx(name: str, tmp_path: Path) -> None:
    network, compressed = imported(name, "pt2")
    x = inputs(name, 3, seed=8)
    expected = answers(compressed, x)
    pt2_writer.write(network, compressed, tmp_path / "out")
    assert equal(next(verify.outputs_pt2(tmp_path / "out", [x.numpy()])), expected)
    exported = onnx_writer.export_onnx(network, compressed)
    assert equal(next(verify.outputs_onnx(exported, [x.numpy()])), expected)
    again = read_pt2((tmp_path / "out").read_bytes())
    assert check_import(again) < ROUNDING
    factors = {
        f"{path}.{part}" for path, pair in pairs(compressed).items() for part, _ in pair.named_children()
    }
    assert factors <= set(again.layers)
