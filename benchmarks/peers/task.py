"""What a peer is given: the network, the budgets and images; and what all peers need to look at it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PeerTask:
    """`cuts`: shares of the network's MACs to remove; `images`, `labels`: prepared, for calibration."""

    original: nn.Module
    example: Tensor
    cuts: tuple[float, ...]
    images: Tensor
    labels: Tensor
    macs: int


@dataclass(frozen=True, eq=False)
class Site:
    """A convolution where it stands; `inputs` and `outputs`: positions of one image before and after it."""

    path: str
    conv: nn.Conv2d
    inputs: int
    outputs: int

    @property
    def macs(self) -> int:
        return self.outputs * self.conv.weight.numel()


def sites(task: PeerTask) -> list[Site]:
    """Every convolution, in the order of execution."""
    found: list[Site] = []

    def watch(path: str, conv: nn.Conv2d) -> Any:
        def note(_: nn.Module, seen: tuple[Tensor, ...], output: Tensor) -> None:
            found.append(Site(path, conv, prod(seen[0].shape[2:]), prod(output.shape[2:])))

        return note

    convs = [(path, child) for path, child in task.original.named_modules() if isinstance(child, nn.Conv2d)]
    handles = [conv.register_forward_hook(watch(path, conv)) for path, conv in convs]
    with torch.no_grad():
        task.original(task.example)
    for handle in handles:
        handle.remove()
    return found


def changed(original: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the network with these layers at these paths."""
    network = copy.deepcopy(original)
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, layer)
    return network.eval()
