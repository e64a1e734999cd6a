"""The exported file is what counts: its accuracy, its operations, its size, its time.

Every network, whosesoever, leaves by the same exporter. Operations are counted in the file: it is run, and
every convolution's and linear layer's own output says on how many positions it works.
"""

import math
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

IMAGE = (3, 32, 32)


def export(network: nn.Module, path: Path) -> Path:
    """As ONNX with a dynamic batch; batch norms that stand behind a convolution are folded into it."""
    axes = {"images": {0: "batch"}, "scores": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one: it takes 0.4 s instead of 5
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, *IMAGE),),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes=axes,
        )
    return path


def macs(path: Path) -> int:
    """Multiply-accumulates of Conv and Gemm for one image, from the sizes that the running file has."""
    model = onnx.load(path)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in layers)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runtime = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs = runtime.run(None, {"images": np.zeros((1, *IMAGE), np.float32)})
    return sum(_macs(node, weights, out.size) for node, out in zip(layers, outputs, strict=True))


def _macs(node: onnx.NodeProto, weights: dict[str, tuple[int, ...]], outputs: int) -> int:
    """Every output value meets the weights of one filter."""
    shape = weights[node.input[1]]
    if node.op_type == "Conv":
        return outputs * math.prod(shape[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return outputs * shape[1 if transposed else 0]


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def correct(runtime: onnxruntime.InferenceSession, images: Tensor, labels: NDArray[np.int64]) -> int:
    """How many images get their class."""
    answers = runtime.run(None, {"images": images.numpy()})[0].argmax(1)
    return int((answers == labels).sum())


def latencies(first: Path, second: Path, batch: int, runs: int) -> tuple[float, float, float]:
    """Median milliseconds of both files at one thread, and the median of second / first over the pairs.

    The two take turns, so that what else the machine does falls on both.
    """
    images = np.random.default_rng(0).standard_normal((batch, *IMAGE), np.float32)
    runtimes = [session(first), session(second)]
    for runtime in runtimes:
        _milliseconds(runtime, images)
    pairs = [[_milliseconds(runtime, images) for runtime in runtimes] for _ in range(runs)]
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def _milliseconds(runtime: onnxruntime.InferenceSession, images: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    runtime.run(None, {"images": images})
    return 1000 * (time.perf_counter() - start)
