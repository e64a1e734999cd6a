"""A network as the rest of the project sees it: a module of standard layers, and the file it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    import onnx

Layout = Literal["NCHW", "NHWC"]


@dataclass
class Network:
    """An imported network.

    ``module`` takes N×C×H×W float32 and gives a tensor, or a tuple of them; every convolution, linear and
    batch-norm layer with stored weights is a submodule of that torch class, called once per use. It is in
    eval mode. An NHWC file is fed through a permutation inside the module.
    """

    module: fx.GraphModule
    input_name: str
    input_shape: tuple[int, ...]  # C, H, W; what the file leaves open is filled with a size that runs
    batch: int | None  # None: any; else the batch size baked into the file
    module_batch: int | None  # the same for `module`, whose import may have freed it
    output_names: tuple[str, ...]
    layers: dict[str, str]  # public layer name -> submodule path, in execution order
    format: Literal["onnx", "pt2"]
    source: onnx.ModelProto | torch.export.ExportedProgram
    layout: Layout = "NCHW"  # how the file itself lays out its image input
    opset: int | None = None
    nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """ONNX: every submodule's path -> the (unique) names of the nodes that it stands for."""
    tensors: dict[str, str] = field(default_factory=dict)
    """ONNX: path of a parameter outside the layers -> the name of its value in the file."""
    values: dict[str, str] = field(default_factory=dict)
    """ONNX: name of a graph node of `module` -> the name of the file's value that it computes."""

    def example(self, batch: int | None = None, seed: int = 0) -> Tensor:
        """Random images of this network's input shape, standard normal, at a batch size that it takes."""
        size = self.module_batch or batch or 1
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, *self.input_shape, generator=generator)

    def public(self) -> Mapping[str, str]:
        """Submodule path -> public layer name."""
        return {path: name for name, path in self.layers.items()}


def as_tuple(outputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, ...]:
    """A network's outputs as a tuple, however many there are."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; the module's training flag is restored."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
