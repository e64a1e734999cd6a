"""A small real CNN as an ONNX file, and images that it answers well, because it named them itself."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from worker.data.ingest import inspect_dataset

SIDE = 16
CLASSES = 10
INPUT = {
    "shape": [3, SIDE, SIDE],
    "scale": 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "layout": "NCHW",
    "resize": None,
    "crop": None,
    "interpolation": "bilinear",
}
LAYERS = ["conv1", "conv2", "conv3", "fc"]


def small_cnn(batch: int | str = "batch", side: int = SIDE) -> bytes:
    """Three 3x3 convolutions with ReLU, global average pool, one linear layer; 1.2 million MACs.

    Its last bias evens the scores out, so that every class is somebody's answer.
    """
    even = -scores(_built("batch", SIDE, None), images(256)).mean(0)
    return _built(batch, side, even)


def _built(batch: int | str, side: int, bias: npt.NDArray[np.float32] | None, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    stored, nodes = [], []

    def weight(name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        values = random.standard_normal(shape) * np.sqrt(2 / fan_in)
        stored.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    x = "image"
    for i, (a, b, stride) in enumerate([(3, 24, 1), (24, 32, 2), (32, 32, 1)], start=1):
        inputs = [x, weight(f"conv{i}.weight", b, a, 3, 3)]
        nodes.append(
            helper.make_node("Conv", inputs, [f"c{i}"], f"conv{i}", pads=[1] * 4, strides=[stride] * 2)
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"))
        x = f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    head = ["flat", weight("fc.weight", CLASSES, 32), "fc.bias"]
    stored.append(numpy_helper.from_array(np.zeros(CLASSES, np.float32) if bias is None else bias, "fc.bias"))
    nodes.append(helper.make_node("Gemm", head, ["scores"], "fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def images(count: int, seed: int = 1) -> npt.NDArray[np.uint8]:
    """Smooth random pictures, so that there is something for a basis to find."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3)).astype(np.float32)
    fine = np.repeat(np.repeat(coarse, SIDE // 4, 1), SIDE // 4, 2)
    noise = np.random.default_rng(seed + 1).normal(0, 12, fine.shape)
    return np.clip(fine + noise, 0, 255).astype(np.uint8)


def scores(model: bytes, x: npt.NDArray[np.uint8], batch: int | None = None) -> npt.NDArray[np.float32]:
    """The network's own answers in ONNX Runtime."""
    pixels = (x.astype(np.float32) / 255 - 0.5) / 0.25
    fed = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    size = batch or len(fed)
    parts = [session.run(None, {"image": fed[i : i + size]})[0] for i in range(0, len(fed), size)]
    return np.concatenate(parts)


def spread_out(model: bytes, count: int, batch: int | None = None) -> npt.NDArray[np.int64]:
    """Labels for `images(count)`: the network's own answers."""
    labels: npt.NDArray[np.int64] = scores(model, images(count), batch).argmax(1).astype(np.int64)
    return labels


def dataset(
    folder: Path, x: npt.NDArray[np.uint8], y: npt.NDArray[np.int64] | None, train: int
) -> tuple[Path, dict[str, object]]:
    """The canonical file of the first `train` images for training, the rest for validation."""
    parts = {"x_train": x[:train], "x_test": x[train:]}
    if y is not None:
        parts |= {"y_train": y[:train], "y_test": y[train:]}
    packed = io.BytesIO()
    np.savez(packed, **parts)
    folder.mkdir(exist_ok=True)
    (folder / "upload").write_bytes(packed.getvalue())
    task = {"file": "upload", "format": "npz", "canonical": "dataset"}
    return folder / "dataset", inspect_dataset(task, folder, lambda _: None)


def with_norms(model: bytes) -> bytes:
    """A batch norm behind every convolution, which remembers mean 0.1 and variance 1; same answers."""
    loaded = onnx.load_from_string(model)
    nodes = []
    for node in loaded.graph.node:
        nodes.append(node)
        if node.op_type != "Conv":
            continue
        raw, width = f"{node.output[0]}.raw", _width(loaded, node.input[1])
        values = {"scale": 1.0, "shift": 0.1, "mean": 0.1, "var": 1.0 - 1e-5}
        names = [f"{node.name}.{name}" for name in values]
        for name, value in zip(names, values.values(), strict=True):
            loaded.graph.initializer.append(numpy_helper.from_array(np.full(width, value, np.float32), name))
        output, node.output[0] = node.output[0], raw
        nodes.append(
            helper.make_node("BatchNormalization", [raw, *names], [output], f"{node.name}.norm", epsilon=1e-5)
        )
    del loaded.graph.node[:]
    loaded.graph.node.extend(nodes)
    onnx.checker.check_model(loaded)
    return loaded.SerializeToString()


def _width(model: onnx.ModelProto, weight: str) -> int:
    return next(int(stored.dims[0]) for stored in model.graph.initializer if stored.name == weight)
