"""Check a downloaded ONNX file without this project: its accuracy, and its operations against the original's.

Imports nothing of ours: ONNX, ONNX Runtime and NumPy only.

    python scripts/check_onnx.py small.onnx original.onnx data.npz \
        --scale 255 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def static_shapes(model: onnx.ModelProto, image: tuple[int, ...]) -> dict[str, list[int]]:
    """The shape of every value at batch 1, by ONNX's own shape inference."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, *image), strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for node in inferred.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                shapes[node.output[0]] = list(attribute.t.dims)
    return shapes


class UnknownSizeError(ValueError):
    """The file leaves open, until it runs, how large a layer's output is: it cannot be counted."""


def count_macs(model: onnx.ModelProto, image: tuple[int, ...]) -> int:
    """Multiply-accumulates of Conv, Gemm and MatMul at batch 1.

    Raises UnknownSizeError rather than count a layer as nothing.
    """
    shapes = static_shapes(model, image)
    macs = 0
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm", "MatMul"} and 0 in shapes.get(node.output[0], [0]):
            raise UnknownSizeError(
                f"the output of {node.name or node.op_type} has no size before the file runs"
            )
        if node.op_type == "Conv":
            weight = shapes[node.input[1]]
            macs += math.prod(shapes[node.output[0]]) * math.prod(weight[1:])
        elif node.op_type in {"Gemm", "MatMul"} and len(shapes.get(node.input[1], [])) == 2:
            macs += math.prod(shapes[node.input[1]]) * math.prod(shapes[node.input[0]][:-1] or [1])
    return macs


def accuracy(
    path: Path, x_NHWC: np.ndarray, y_N: np.ndarray, scale: float, mean: list[float], std: list[float]
) -> float:
    """Share of images whose largest output is their label; a batch size fixed in the file is honoured."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None
    batch, right = fixed or 256, 0
    for start in range(0, len(x_NHWC), batch):
        labels = y_N[start : start + batch]
        images = x_NHWC[start : start + batch].astype(np.float32) / scale
        images = (images - np.float32(mean)) / np.float32(std)
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        if fixed and len(images) < fixed:
            images = np.resize(images, (fixed, *images.shape[1:]))
        logits = session.run(None, {entry.name: images})[0][: len(labels)]
        right += int((logits.argmax(1) == labels).sum())
    return right / len(x_NHWC)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("compressed", type=Path)
    parser.add_argument("original", type=Path)
    parser.add_argument("data", type=Path, help=".npz with x_test (uint8 NHWC) and y_test, or x and y")
    parser.add_argument("--scale", type=float, default=255.0)
    parser.add_argument("--mean", type=float, nargs="+", default=[0.0])
    parser.add_argument("--std", type=float, nargs="+", default=[1.0])
    options = parser.parse_args()
    with np.load(options.data, allow_pickle=False) as data:
        part = "_test" if "x_test" in data else ""
        x_NHWC, y_N = data[f"x{part}"], data[f"y{part}"]
    image = (x_NHWC.shape[3], *x_NHWC.shape[1:3])
    counts: dict[str, int] = {}
    for name in ("original", "compressed"):
        path: Path = getattr(options, name)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        counts[name] = count_macs(model, image)
        right = accuracy(path, x_NHWC, y_N, options.scale, options.mean, options.std)
        sys.stdout.write(f"{name:<11} accuracy {right:.4f}   macs {counts[name]:,}\n")
    sys.stdout.write(f"kept macs   {counts['compressed'] / counts['original']:.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
