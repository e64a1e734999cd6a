"""Networks of the right shapes for timing; their numbers mean nothing."""

import copy
from typing import TypeVar, cast

import torch
from torch import nn

from basisconv.latency.timer import Cut, Variant
from basisconv.nn import BasisConv2d, BasisLinear, Factorized, SeparableConv2d
from basisconv.surgery import replace_

Net = TypeVar("Net", bound=nn.Module)


def with_pairs(module: Net, variant: Variant) -> Net:
    """`module` with pairs of random weights in place; all other tensors are shared with it, not copied."""
    tensors = [*module.parameters(), *module.buffers()]
    made = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    pairs = {path: pair_like(made.get_submodule(path), cut) for path, cut in variant.items()}
    return cast(Net, replace_(made, pairs))


@torch.no_grad()
def pair_like(layer: nn.Module, cut: Cut) -> Factorized:
    """A pair whose answers have about the layer's size: neither overflow nor denormals disturb the timing."""
    pair = _empty(layer, cut)
    generator = torch.Generator(device=pair.first.weight.device).manual_seed(0)
    fan_in = pair.first.weight[0].numel()
    size = cast(nn.Conv2d, layer).weight.detach().square().mean().sqrt() * fan_in**0.5
    taps = pair.second.weight[0].numel()
    pair.first.weight.normal_(0, fan_in**-0.5, generator=generator)
    pair.second.weight.normal_(0, 1, generator=generator).mul_(size * taps**-0.5)
    if pair.second.bias is not None:
        pair.second.bias.zero_()
    return pair.requires_grad_(False)


def _empty(layer: nn.Module, cut: Cut) -> Factorized:
    if isinstance(layer, nn.Linear):
        return BasisLinear.like(layer, cut.rank, bias=True)
    assert isinstance(layer, nn.Conv2d)
    if cut.form == "basis":
        return BasisConv2d.like(layer, cut.rank, bias=True)
    return SeparableConv2d.like(layer, cut.form, cut.rank, bias=True)
