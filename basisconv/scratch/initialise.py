"""First weights of everything that learns."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from basisconv.cost import evaluating
from basisconv.nn import Factorized

Weighted = (nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001 (the base of all convolutions)


def fresh_(module: nn.Module, seed: int) -> nn.Module:
    """New first weights for all layers; pairs keep their fixed filters.

    Convolutions, linear layers and mixings are normal with variance 2 / fan-in (He et al. 2015): behind
    orthonormal filters a mixing of R inputs keeps the variance as a dense layer of R inputs would, for
    f'Cf = tr(C)/I on average over random unit filters f. Biases are 0, norms and all other layers as torch
    makes them. Parameters and constants outside of layers stay: a graph does not tell weights from
    constants. Drawn on the CPU, in the order of the modules: the same on every device.
    """
    generator = Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for child in module.modules():
            if isinstance(child, Weighted):
                continue
            for name in ("reset_parameters", "_reset_parameters"):  # attention has the second
                reset = getattr(child, name, None)
                if callable(reset):
                    reset()
    for layer in learned_layers(module).values():
        _he(layer, generator)
    return module


def learned_layers(module: nn.Module) -> dict[nn.Module, nn.Module]:
    """Every layer as the network calls it, and its part that learns: of a pair, the mixing."""
    pairs = {child: child.second for child in module.modules() if isinstance(child, Factorized)}
    parts = {id(part) for pair in pairs for part in pair.children()}
    plain = {c: c for c in module.modules() if isinstance(c, Weighted) and id(c) not in parts}
    return {child: (pairs | plain)[child] for child in module.modules() if child in pairs or child in plain}


@torch.no_grad()
def _he(layer: nn.Module, generator: Generator) -> None:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    weight.copy_(torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5)
    if isinstance(bias, Tensor):
        bias.zero_()


def unit_variance_(module: nn.Module, images: Tensor) -> nn.Module:
    """Scale every learned layer so that its answers to these images have variance 1 (Mishkin and Matas 2016).

    One forward pass: each layer is scaled before the next one sees it. It keeps deep networks without
    batch norms (folded ones, say) from exploding; before batch norms it changes nothing. Fresh weights with
    zero biases are taken for granted.
    """
    with _scaled(learned_layers(module)), evaluating(module):
        module(images)
    return module


@contextmanager
def _scaled(layers: dict[nn.Module, nn.Module]) -> Iterator[None]:
    seen: set[nn.Module] = set()

    def scale(layer: nn.Module, _: object, output: Tensor) -> Tensor | None:
        deviation = output.std()
        if layer in seen or not (torch.isfinite(deviation) and deviation > 0):
            return None
        seen.add(layer)
        weight = layers[layer].weight
        assert isinstance(weight, Tensor)
        weight.div_(deviation)
        return output / deviation

    handles = [layer.register_forward_hook(scale) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
