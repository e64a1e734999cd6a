"""A compressed network leaves in every format and answers there as it does in memory."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from torch import nn

from basisconv.errors import InvalidRequest
from basisconv.formats import onnx_reader, onnx_writer, pt2_writer, verify, weights
from basisconv.formats.compare import difference
from basisconv.formats.network import Network
from basisconv.nn import BasisConv2d, BasisLinear, SeparableConv2d
from basisconv.surgery import replace_
from tests.formats.nets import (
    answers,
    compress,
    conv,
    conv_weights,
    graph,
    images,
    read,
    read_pt2,
    small_onnx,
    small_pt2,
)

ROUNDING = 1e-5


def make(kind: str, batch: int | None = None) -> Network:
    return read(small_onnx(batch) if kind == "onnx" else small_pt2(batch), kind)


def onnx_answers(model: ModelProto, x: torch.Tensor, batch: int | None = None) -> NDArray[Any]:
    (result,) = next(verify.outputs_onnx(model, [x.numpy()], batch))
    return result


def initialisers(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def interface(model: ModelProto) -> list[bytes]:
    return [
        item.SerializeToString() for item in [*model.graph.input, *model.graph.output, *model.opset_import]
    ]


@pytest.mark.parametrize("batch", [None, 1])
def test_onnx_comes_back_as_onnx(batch: int | None) -> None:
    network = make("onnx", batch)
    compressed = compress(network)
    model = onnx_writer.write(network, compressed)
    x = images(5)
    assert difference(onnx_answers(model, x, batch), answers(compressed, x)) < ROUNDING
    assert difference(answers(compressed, x), answers(network.module, x)) > 100 * ROUNDING


@pytest.mark.parametrize("batch", [None, 1])
def test_pt2_comes_back_as_pt2(batch: int | None, tmp_path: Path) -> None:
    network = make("pt2", batch)
    compressed = compress(network)
    pt2_writer.write(network, compressed, tmp_path / "out")
    x = images(5)
    (result,) = next(verify.outputs_pt2(tmp_path / "out", [x.numpy()], batch))
    assert difference(result, answers(compressed, x)) < ROUNDING
    again = read_pt2((tmp_path / "out").read_bytes())
    assert again.batch == batch
    assert {"fc1.basis", "fc1.mixing", "stem"} <= set(again.layers)


@pytest.mark.parametrize("batch", [None, 1])
def test_onnx_leaves_as_pt2(batch: int | None, tmp_path: Path) -> None:
    network = make("onnx", batch)
    compressed = compress(network)
    pt2_writer.write(network, compressed, tmp_path / "out")
    x = images(5)
    (result,) = next(verify.outputs_pt2(tmp_path / "out", [x.numpy()], batch))
    assert difference(result, answers(compressed, x)) < ROUNDING


@pytest.mark.parametrize("batch", [None, 1])
def test_pt2_leaves_as_onnx_with_its_batch(batch: int | None) -> None:
    network = make("pt2", batch)
    compressed = compress(network)
    model = onnx_writer.export_onnx(network, compressed)
    x = images(5)
    assert difference(onnx_answers(model, x, batch), answers(compressed, x)) < ROUNDING
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert size.dim_value == 1 if batch else size.dim_param
    assert model.graph.input[0].name == network.input_name


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_weights_and_recipe_rebuild_the_network(kind: str, tmp_path: Path) -> None:
    network = make(kind)
    compressed = compress(network)
    recipe = weights.write(network, compressed, tmp_path / "w.safetensors")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    rebuilt = weights.read(make(kind), tmp_path / "w.safetensors", tmp_path / "recipe.json")
    assert (answers(rebuilt, images(3)) == answers(compressed, images(3))).all()
    assert {entry["name"] for entry in recipe["layers"]} <= set(network.layers)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    network = make("onnx")
    recipe = weights.write(network, compress(network), tmp_path / "w.safetensors")
    recipe["layers"] = recipe["layers"][1:]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InvalidRequest, match="do not fit"):
        weights.read(network, tmp_path / "w.safetensors", tmp_path / "recipe.json")


def test_a_network_that_nothing_changed_comes_back_byte_for_byte() -> None:
    data = small_onnx()
    network = onnx_reader.load(data)
    assert onnx_writer.write(network, network.module) == onnx.load_model_from_string(data)


def test_the_graph_is_the_users_but_for_the_replaced_nodes() -> None:
    network = make("onnx")
    source = network.source
    assert isinstance(source, ModelProto)
    source.metadata_props.add(key="author", value="somebody")
    source.graph.doc_string = "their words"
    model = onnx_writer.write(network, compress(network))
    assert interface(model) == interface(source)
    assert (model.metadata_props, model.graph.doc_string) == (source.metadata_props, "their words")
    before, after = ([node.name for node in m.graph.node] for m in (source, model))
    replaced = [name for name in before if name not in after]
    assert replaced == ["/block/block.0/Conv", "/down/Conv", "/fc1/Gemm", "/fc2/Gemm"]
    expected = [
        n for name in before for n in ([f"{name}/first", f"{name}/second"] if name in replaced else [name])
    ]
    assert after == expected


def test_no_weight_of_a_replaced_layer_is_left_and_no_name_is_given_twice() -> None:
    network = make("onnx")
    model = onnx_writer.write(network, compress(network))
    assert not {"block.0.weight", "down.weight", "fc1.weight"} & set(initialisers(model))
    outputs = [name for node in model.graph.node for name in node.output]
    assert len(set(outputs)) == len(outputs)
    read_by = {name for node in model.graph.node for name in node.input}
    assert set(initialisers(model)) <= read_by
    assert all(tensor.raw_data for tensor in model.graph.initializer)


def test_every_other_weight_is_the_modules() -> None:
    network = make("onnx")
    compressed = compress(network)
    stored = initialisers(onnx_writer.write(network, compressed))
    norm = compressed.get_submodule("bn_BatchNormalization")
    assert isinstance(norm, nn.BatchNorm2d)
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert (stored[f"bn.{name}"] == getattr(norm, name).detach().numpy()).all()


@pytest.mark.parametrize("pads", [[1, 0, 2, 3], [1, 1, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("strides", [[1, 1], [2, 1], [2, 2]])
@pytest.mark.parametrize("form", ["basis", "kx1_1xk", "1xk_kx1"])
def test_pads_go_where_the_two_nodes_need_them(pads: list[int], strides: list[int], form: Any) -> None:
    _check_pair(conv(pads=pads, strides=strides), form)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("form", ["basis", "kx1_1xk", "1xk_kx1"])
def test_automatic_padding_survives_the_split(mode: str, form: Any) -> None:
    _check_pair(conv(auto_pad=mode, strides=[2, 2]), form)


def _check_pair(node: Any, form: Any) -> None:
    network = onnx_reader.load(graph([node], conv_weights()).SerializeToString())
    compressed = copy.deepcopy(network.module)
    layer = compressed.get_submodule("conv")
    assert isinstance(layer, nn.Conv2d)
    rank = 2
    pair = (
        BasisConv2d.from_conv(layer, rank)
        if form == "basis"
        else SeparableConv2d.from_conv(layer, rank, form)
    )
    replace_(compressed, {"conv": pair})
    model = onnx_writer.write(network, compressed)
    assert difference(onnx_answers(model, images(2)), answers(compressed, images(2))) < ROUNDING


def test_weights_in_constant_nodes_are_replaced_there() -> None:
    made = conv_weights(outputs=4) | conv_weights("tail", outputs=4, inputs=4)
    constants = [
        helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(value))
        for name, value in made.items()
    ]
    model = graph([*constants, conv(target="m"), conv("tail", source="m")], {})
    network = onnx_reader.load(model.SerializeToString())
    compressed = compress(network)
    written = onnx_writer.write(network, compressed)
    assert difference(onnx_answers(written, images(2)), answers(compressed, images(2))) < ROUNDING
    left = {node.output[0] for node in written.graph.node if node.op_type == "Constant"}
    assert left == {"conv.w", "conv.b"}


def test_a_weight_that_others_read_too_is_left_to_them() -> None:
    nodes = [conv(target="c"), helper.make_node("ReduceSum", ["conv.w"], ["s"], "sum", keepdims=0)]
    nodes.append(helper.make_node("Add", ["c", "s"], ["y"], "add"))
    network = onnx_reader.load(graph(nodes, conv_weights()).SerializeToString())
    compressed = copy.deepcopy(network.module)
    with torch.no_grad():
        compressed.get_submodule("conv").get_parameter("weight").mul_(2)
    written = onnx_writer.write(network, compressed)
    assert (initialisers(written)["conv.w"] == conv_weights()["conv.w"]).all()
    assert difference(onnx_answers(written, images(2)), answers(compressed, images(2))) < ROUNDING


@pytest.mark.parametrize("opset", [9, 17])
def test_gemm_and_matmul_become_two_each(opset: int) -> None:
    random = np.random.default_rng(0)
    made = {
        "g": random.standard_normal((3, 6)).astype(np.float32),
        "c": random.standard_normal(6).astype(np.float32),
        "m": random.standard_normal((6, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "g", "c"], ["h"], "gemm", alpha=0.5),
        helper.make_node("MatMul", ["h", "m"], ["y"], "matmul"),
    ]
    network = onnx_reader.load(graph(nodes, made, opset=opset).SerializeToString())
    compressed = copy.deepcopy(network.module)
    pairs = {path: BasisLinear.from_linear(compressed.get_submodule(path), 2) for path in ("gemm", "matmul")}  # type: ignore[arg-type]
    replace_(compressed, pairs)
    written = onnx_writer.write(network, compressed)
    kinds = [node.op_type for node in written.graph.node]
    assert kinds == ["GlobalAveragePool", "Flatten", "Gemm", "Gemm", "MatMul", "MatMul"]
    assert difference(onnx_answers(written, images(2)), answers(compressed, images(2))) < ROUNDING


def test_a_layer_used_twice_is_split_twice_with_one_set_of_weights() -> None:
    nodes = [conv(target="a", pads=[1, 1, 1, 1]), conv(source="a", pads=[1, 1, 1, 1])]
    nodes[1].name = "again"
    network = onnx_reader.load(graph(nodes, conv_weights(outputs=3)).SerializeToString())
    compressed = copy.deepcopy(network.module)
    replace_(compressed, {"conv": BasisConv2d.from_conv(compressed.get_submodule("conv"), 2)})  # type: ignore[arg-type]
    written = onnx_writer.write(network, compressed)
    assert [node.name for node in written.graph.node] == [
        "conv/first",
        "conv/second",
        "again/first",
        "again/second",
    ]
    assert len(written.graph.initializer) == 3
    assert difference(onnx_answers(written, images(2)), answers(compressed, images(2))) < ROUNDING


def test_an_nhwc_file_stays_one() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 3, 1, 2]), conv(source="t")]
    model = graph(nodes, conv_weights(), shape=("n", 12, 12, 3))
    network = onnx_reader.load(model.SerializeToString())
    compressed = copy.deepcopy(network.module)
    replace_(compressed, {"conv": BasisConv2d.from_conv(compressed.get_submodule("conv"), 2)})  # type: ignore[arg-type]
    written = onnx_writer.write(network, compressed)
    assert interface(written) == interface(model)
    assert difference(onnx_answers(written, images(2)), answers(compressed, images(2))) < ROUNDING
