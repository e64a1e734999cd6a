"""Compress any small network, and hold the outcome to what the network has become."""

import torch
from torch import Tensor, nn

from basisconv import DecomposeConfig, Decomposition, Factorized, count, decompose_, describe
from tests.method.shelf import images, randomize

X = images()


def run(network: nn.Module, x: Tensor = X, batch: int = 32, **config) -> Decomposition:
    """Compress in place, and hold the outcome to what the network has become."""
    before = count(network, x[:1])
    *_, end = decompose_(network, x[:1], DecomposeConfig(**config), lambda: iter(x.split(batch)))
    assert isinstance(end, Decomposition)
    pairs = {path for path, module in network.named_modules() if isinstance(module, Factorized)}
    assert {layer.name for layer in end.layers if layer.replaced} == pairs
    assert all((layer.reason is None) == layer.replaced for layer in end.layers)
    assert end.costs == count(network, x[:1])
    if config.get("target_kind", "macs") == "macs":
        assert end.costs.macs <= config.get("target_value", 0.5) * before.macs
    return end


def lost(network: nn.Module, original: nn.Module, x: Tensor = X) -> float:
    """Share of the output's variance that the compressed network misses."""
    with torch.no_grad():
        y, y_hat = original(x).double(), network(x).double()
    return float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum())


def reasons(network: nn.Module, x: Tensor = X) -> dict[str, str | None]:
    return {layer.name: layer.reason for layer in describe(network, x[:1])}


def body(*layers: nn.Module, inputs: int = 3, outputs: int = 10) -> nn.Sequential:
    """Given layers (16 channels to 16) between a stem and a classifier."""
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, outputs)]
    network = nn.Sequential(nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU(), *layers, nn.ReLU(), *head)
    return randomize(network)
