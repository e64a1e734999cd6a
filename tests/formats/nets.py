"""Small networks and the files they make, for the tests of the formats."""

import copy
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from basisconv.formats import onnx_reader, pt2_reader
from basisconv.formats.network import Network
from basisconv.nn import BasisConv2d, BasisLinear, Factorized, SeparableConv2d
from basisconv.surgery import replace_

SIDE, CLASSES = 12, 5


class Small(nn.Module):
    """Residual, strided, depthwise, dilated and biased layers, batch norms and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 2, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.down = nn.Conv2d(8, 12, 3, 2, 1)
        self.fc1 = nn.Linear(12, 16)
        self.fc2 = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.block(x)
        x = F.relu(self.down(self.deep(x)))
        x = F.adaptive_avg_pool2d(x, 1)
        x = x.view(x.size(0), -1)
        return self.fc2(F.relu(self.fc1(x)))


def small(seed: int = 0) -> Small:
    """In eval mode, with batch-norm statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Small()
        network(torch.randn(16, 3, SIDE, SIDE))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
    return network.eval()


def images(count: int, side: int = SIDE, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def onnx_of(network: nn.Module, batch: int | None = None, opset: int = 17, side: int = SIDE) -> bytes:
    """By the older exporter, which is quick and keeps batch norms when asked to."""
    buffer = io.BytesIO()
    axes = None if batch else {"images": {0: "n"}, "scores": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images(batch or 2, side),),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes=axes,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return buffer.getvalue()


def pt2_of(network: nn.Module, batch: int | None = None, x: Tensor | None = None) -> bytes:
    dynamic = None if batch else ({0: torch.export.Dim("n")},)
    program = torch.export.export(network, (images(batch or 2) if x is None else x,), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@cache
def small_onnx(batch: int | None = None) -> bytes:
    """The small network as a file, made once."""
    return onnx_of(small(), batch)


@cache
def small_pt2(batch: int | None = None) -> bytes:
    return pt2_of(small(), batch)


def read_pt2(data: bytes) -> Network:
    """As the inspector does: a clean archive first, and only that is loaded."""
    clean = io.BytesIO()
    pt2_reader.canonicalise(io.BytesIO(data), clean)
    clean.seek(0)
    return pt2_reader.load(clean)


def read(data: bytes, kind: str) -> Network:
    return onnx_reader.load(data) if kind == "onnx" else read_pt2(data)


def compress(network: Network, rank_share: float = 0.6) -> fx.GraphModule:
    """A changed copy: every form of pair, and every other weight moved a little, as fine-tuning does."""
    module = copy.deepcopy(network.module)
    pairs: dict[str, nn.Module] = {}
    for number, path in enumerate(network.layers.values()):
        layer = module.get_submodule(path)
        full = min(layer.weight.shape[0], layer.weight[0].numel())
        rank = max(1, round(rank_share * full))
        if isinstance(layer, nn.Linear):
            pairs[path] = BasisLinear.from_linear(layer, rank)
        elif isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.in_channels > 3:
            pairs[path] = _pair(layer, rank, number)
    replace_(module, pairs)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
        statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var)]
        for tensor in [*module.parameters(), *(value for value in statistics if value is not None)]:
            tensor.mul_(1 + 0.1 * torch.rand(tensor.shape, generator=generator))
    return module.eval()


def _pair(layer: nn.Conv2d, rank: int, number: int) -> Factorized:
    if number % 3 == 0 or max(layer.kernel_size) == 1:
        return BasisConv2d.from_conv(layer, rank)
    return SeparableConv2d.from_conv(layer, rank, "kx1_1xk" if number % 3 == 1 else "1xk_kx1")


def answers(module: nn.Module, x: Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        result: NDArray[np.float32] = module(x).numpy()
    return result


def graph(
    nodes: Sequence[NodeProto],
    weights: dict[str, NDArray[Any]],
    *,
    shape: Sequence[int | str] = ("n", 3, SIDE, SIDE),
    output: str = "y",
    opset: int = 17,
    domains: Sequence[str] = (),
) -> ModelProto:
    """An ONNX model of hand-written nodes from `x` to `output`."""
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(made, opset_imports=imports, ir_version=8)
    return _with_output_shape(model)


def _with_output_shape(model: ModelProto) -> ModelProto:
    """The checker asks for the output's shape; a graph that is wrong on purpose gets any."""
    (output,) = model.graph.output
    output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.output[0]
    except Exception:
        inferred = output
    if not inferred.type.tensor_type.HasField("shape"):
        inferred = helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["n", "c"])
    output.CopyFrom(inferred)
    return model


def conv(name: str = "conv", source: str = "x", target: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [target], name, **attributes)


def conv_weights(
    name: str = "conv", outputs: int = 4, inputs: int = 3, kernel: int = 3
) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    weight = random.standard_normal((outputs, inputs, kernel, kernel)).astype(np.float32)
    return {f"{name}.w": weight, f"{name}.b": random.standard_normal(outputs).astype(np.float32)}


def rezipped(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The same archive with some of its records changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    change(records)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def edited(data: bytes, record: str, change: Callable[[Any], None]) -> bytes:
    """The same archive with the JSON record whose name ends in `record` changed."""

    def edit(records: dict[str, bytes]) -> None:
        name = next(name for name in records if name.endswith(record))
        content = json.loads(records[name])
        change(content)
        records[name] = json.dumps(content).encode()

    return rezipped(data, edit)


def save(model: ModelProto, path: Path) -> Path:
    onnx.save_model(model, path)
    return path
