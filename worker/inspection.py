"""What an uploaded network is: runs in the sandboxed child, writes the canonical form and the layer table."""

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import torch
from onnx import ModelProto

from app.core.errors import MalformedModel, UnsupportedFormat, ValidationFailed
from app.models.sniff import HEAD_BYTES, sniff
from basisconv.cost import Layer, count, describe
from basisconv.errors import MethodError
from basisconv.formats import onnx_reader, pt2_reader
from basisconv.formats.budget import Budget
from basisconv.formats.compare import check_import
from basisconv.formats.network import Layout, Network, as_tuple, evaluating
from worker.problems import as_problem

Report = Callable[[dict[str, Any]], None]
_FIELDS: Final = ("shape", "scale", "mean", "std", "layout", "resize", "crop", "interpolation")
_INTERPOLATIONS: Final = ("nearest", "bilinear", "bicubic")
_MAX_VALUE: Final = 1 << 30  # numbers of one value: 4 GB
_MAX_PIXELS: Final = 100_000_000  # floats of one image; the first layer's output is larger still


def inspect_model(task: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
    """Handle an ``inspect_model`` task: see the network's own file, never believe its name.

    Raises Problem: what the file is, or what in it cannot be taken, and where.
    """
    requested = Requested(task.get("input") or {})
    source, canonical = folder / task["file"], folder / task["canonical"]
    found = _format(source, task["format"])
    try:
        with torch.no_grad():
            report(_progress(0.1, "Reading the network"))
            network = _load(source, canonical, found, requested, _budget(task))
            report(_progress(0.5, "Comparing our copy with the file"))
            check_import(network)
            report(_progress(0.8, "Measuring the layers"))
            return {"canonical": task["canonical"], **_answer(network, requested)}
    except MethodError as error:
        raise as_problem(error, task) from error


def _progress(fraction: float, message: str) -> dict[str, Any]:
    return {"type": "progress", "fraction": fraction, "message": message}


def _format(source: Path, said: str) -> Literal["onnx", "pt2"]:
    with source.open("rb") as file:
        found = sniff(file.read(HEAD_BYTES), "")
    if said in ("onnx", "pt2") and found != said:
        raise UnsupportedFormat(f"The file was taken for {said}, but is {found}.")
    return found


def _budget(task: dict[str, Any]) -> Budget:
    """What the server lets one call of a network cost; an inspection makes about a dozen."""
    return Budget(task.get("max_macs", math.inf), task.get("max_values", math.inf), _MAX_VALUE)


def _load(
    source: Path, canonical: Path, found: Literal["onnx", "pt2"], requested: "Requested", budget: Budget
) -> Network:
    """The network, read back from the canonical form wherever that differs from the upload."""
    if found == "onnx":
        network = onnx_reader.load(source, requested.shape, requested.layout, budget)
        assert isinstance(network.source, ModelProto)
        canonical.write_bytes(network.source.SerializeToString())
        return network
    if requested.layout == "NHWC":
        raise _invalid("layout", "is NHWC, which is read from ONNX files only; a .pt2 takes NCHW")
    clean = io.BytesIO()
    pt2_reader.canonicalise(source, clean)
    canonical.write_bytes(clean.getvalue())
    clean.seek(0)
    return pt2_reader.load(clean, requested.shape, budget)


def _answer(network: Network, requested: "Requested") -> dict[str, Any]:
    channels, height, width = network.input_shape
    if channels * height * width > _MAX_PIXELS:
        raise MalformedModel(
            f"One image of {channels}×{height}×{width} floats is more than {_MAX_PIXELS:,}.",
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


class Requested:
    """What the uploader said of the input; checked here too, because only the file knows the channels."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = {name: value for name, value in said.items() if value is not None}
        unknown = sorted(set(said) - set(_FIELDS))
        if unknown:
            raise _invalid(unknown[0], f"is not a field of `input`; those are {', '.join(_FIELDS)}")
        self.shape = self._read_shape()
        self.layout: Layout | None = self._choice("layout", ("NCHW", "NHWC"))
        self.scale = self._positive("scale", 255)
        self.resize, self.crop = self._side("resize"), self._side("crop")
        self.interpolation = self._choice("interpolation", _INTERPOLATIONS) or "bilinear"
        if self.resize and self.crop and self.crop > self.resize:
            raise _invalid("crop", f"is {self.crop}, more than the {self.resize} that images are resized to")

    def complete(self, network: Network) -> dict[str, Any]:
        """The `input` of the REST contract, with everything filled in."""
        channels = network.input_shape[0]
        return {
            "shape": list(network.input_shape),
            "scale": self.scale,
            "mean": self._per_channel("mean", channels, 0.0),
            "std": self._per_channel("std", channels, 1.0),
            "layout": network.layout,
            "resize": self.resize,
            "crop": self.crop,
            "interpolation": self.interpolation,
        }

    def _read_shape(self) -> tuple[int, int, int] | None:
        shape = self._said.get("shape")
        if shape is None:
            return None
        if not isinstance(shape, list) or len(shape) != 3 or any(not _is_side(side) for side in shape):
            raise _invalid("shape", f"must be [channels, height, width], whole numbers from 1; got {shape!r}")
        return (shape[0], shape[1], shape[2])

    def _choice(self, name: str, allowed: tuple[str, ...]) -> Any:
        value = self._said.get(name)
        if value is not None and value not in allowed:
            raise _invalid(name, f"must be one of {', '.join(allowed)}; got {value!r}")
        return value

    def _positive(self, name: str, default: float) -> float:
        value = self._said.get(name, default)
        if not _is_number(value) or not 0 < value < 1e9:
            raise _invalid(name, f"must be a number above 0; got {value!r}")
        return float(value) if value != int(value) else int(value)

    def _side(self, name: str) -> int | None:
        value = self._said.get(name)
        if value is not None and not _is_side(value):
            raise _invalid(name, f"must be a whole number of pixels from 1; got {value!r}")
        return value

    def _per_channel(self, name: str, channels: int, default: float) -> list[float]:
        values = self._said.get(name)
        if values is None:
            return [default] * channels
        if not isinstance(values, list) or any(not _is_number(value) for value in values):
            raise _invalid(name, f"must be a list of numbers; got {values!r}")
        if len(values) != channels:
            raise _invalid(name, f"has {len(values)} values; the network takes {channels} channels")
        if name == "std" and min(values) <= 0:
            raise _invalid(name, f"must be above 0 in every channel; got {values}")
        return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_536


def _invalid(field: str, what: str) -> ValidationFailed:
    return ValidationFailed(
        f"input.{field} {what}.", errors=[{"pointer": f"#/input/{field}", "detail": f"{field} {what}"}]
    )
