"""A module as an ExportedProgram: what both the .pt2 and, for .pt2 networks, the ONNX export start from."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx
from torch.export import Dim, ExportedProgram

from basisconv.formats.network import Network


def program_of(network: Network, compressed: fx.GraphModule) -> ExportedProgram:
    """torch.export of `compressed` on the CPU, in eval mode. The batch, and in a .pt2 the image size, stay
    open where the source had them open."""
    module = on_cpu(compressed)
    images = network.example(network.batch or 2)
    with quiet(), torch.no_grad():
        return torch.export.export(module, (images,), dynamic_shapes=_dynamic(network), strict=False)


def on_cpu(module: fx.GraphModule) -> fx.GraphModule:
    """As `on_device`, on the CPU."""
    return on_device(module, "cpu")


def on_device(module: fx.GraphModule, device: str) -> fx.GraphModule:
    """A copy in float32 on the device, in eval mode and in torch's own memory order."""
    moved = copy.deepcopy(module).to(device, torch.float32)
    for parameter in moved.parameters():
        parameter.data = parameter.data.contiguous()
    return moved.eval()


def _dynamic(network: Network) -> tuple[dict[int, object]] | None:
    open_axes: dict[int, object] = {}
    if network.batch is None:
        open_axes[0] = Dim("batch")
    if isinstance(network.source, ExportedProgram):
        (name,) = network.source.graph_signature.user_inputs
        image = next(node for node in network.source.graph.nodes if node.name == name)
        for axis in (2, 3):
            if not isinstance(image.meta["val"].shape[axis], int):
                open_axes[axis] = Dim.AUTO
    return (open_axes,) if open_axes else None


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's remarks on missing torchvision operators and its own deprecated calls."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
