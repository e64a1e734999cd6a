"""What an uploaded network is: runs in the sandboxed child, writes the canonical form and the layer table."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any, Final

import torch
from onnx import ModelProto

from app.core.errors import MalformedModel
from basisconv.cost import Layer, count, describe
from basisconv.formats import onnx_reader
from basisconv.formats.budget import Budget
from basisconv.formats.compare import check_import
from basisconv.formats.network import Network, as_tuple, evaluating
from basisconv.formats.pt2_archive import Archive
from worker import built
from worker.first_look import Parsed, Report
from worker.requested import MAX_PIXELS, Requested, invalid

_MAX_VALUE: Final = 1 << 30  # numbers of one value: 4 GB


def inspect(task: dict[str, Any], folder: Path, report: Report, parsed: Parsed) -> dict[str, Any]:
    """Go on where the first look ended: what the network is, and its canonical form.

    Raises Problem or MethodError: what in the file cannot be taken, and where.
    """
    requested = Requested(task.get("input") or {})
    source, canonical = folder / task["file"], folder / task["canonical"]
    with torch.no_grad():
        made = None
        if parsed.format != "onnx" and parsed.format != "pt2":
            made = built.build(parsed.format, source, task)
            requested = made.requested
        network = _load(made.path if made else parsed.take(), canonical, requested, _budget(task))
        report(_progress(0.5, "Comparing our copy with the file"))
        check_import(network)
        if made is not None:
            made.check(network)
        report(_progress(0.8, "Measuring the layers"))
        answer = _answer(network, requested)
        if made is not None:
            answer["details"]["architecture"] = made.architecture
        return {"canonical": task["canonical"], **answer}


def _progress(fraction: float, message: str) -> dict[str, Any]:
    return {"type": "progress", "fraction": fraction, "message": message}


def _budget(task: dict[str, Any]) -> Budget:
    """What the server lets one call of a network cost; an inspection makes about a dozen."""
    return Budget(task.get("max_macs", math.inf), task.get("max_values", math.inf), _MAX_VALUE)


def _load(
    content: ModelProto | Archive | Path | None, canonical: Path, requested: Requested, budget: Budget
) -> Network:
    """The network, read back from the canonical form wherever that differs from the upload.

    content: what was parsed, or the .pt2 that was made of another format.
    """
    if isinstance(content, ModelProto):
        network = onnx_reader.load(content, requested.shape, requested.layout, budget)
        assert isinstance(network.source, ModelProto)
        canonical.write_bytes(network.source.SerializeToString())
        return network
    assert content is not None
    if requested.layout == "NHWC":
        raise invalid("layout", "is NHWC, which is read from ONNX files only; a .pt2 takes NCHW")
    from basisconv.formats import pt2_reader  # torch's serialiser takes as long to import as torch

    clean = io.BytesIO()
    pt2_reader.canonicalise(content, clean)
    del content  # as large as the file
    canonical.write_bytes(clean.getvalue())
    clean.seek(0)
    return pt2_reader.load(clean, requested.shape, budget)


def _answer(network: Network, requested: Requested) -> dict[str, Any]:
    channels, height, width = network.input_shape
    if channels * height * width > MAX_PIXELS:
        raise MalformedModel(
            f"One image of {channels}×{height}×{width} floats is more than {MAX_PIXELS:,}.",
            hint='Say a smaller size when you upload: input {"shape": [3, 224, 224]}.',
        )
    example = network.example()
    shapes = _output_shapes(network)
    table = describe(network.module, example)
    if not table:
        raise MalformedModel(
            "The network has no convolution or linear layer with stored weights.",
            hint="There is nothing in it that could be made smaller.",
        )
    costs = count(network.module, example)
    public = network.public()
    layers = [_row(layer, public.get(layer.name, layer.name)) for layer in table]
    return {
        "input": requested.complete(network),
        "summary": {
            "macs": costs.macs,
            "params": costs.params,
            "layers": len(layers),
            "compressible": sum(row["compressible"] for row in layers),
            "outputs": [shape[0] if shape else 1 for shape in shapes],
        },
        "layers": layers,
        "details": {
            "batch": network.batch,
            "module_batch": network.module_batch,
            "input_name": network.input_name,
            "output_names": list(network.output_names),
            "output_shapes": [list(shape) for shape in shapes],
            "opset": network.opset,
            "classifier": len(shapes) == 1 and len(shapes[0]) == 1 and shapes[0][0] > 1,
        },
    }


def _output_shapes(network: Network) -> list[tuple[int, ...]]:
    """Every output's shape without the batch."""
    with evaluating(network.module):
        return [tuple(output.shape[1:]) for output in as_tuple(network.module(network.example()))]


def _row(layer: Layer, name: str) -> dict[str, Any]:
    row = dataclasses.asdict(layer) | {"name": name}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}
