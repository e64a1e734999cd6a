"""Batch-norm statistics measured anew after truncation: no labels, no gradients, one pass."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The norms with running statistics."""
    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (of BatchNorm1d, 2d and 3d)
    return [m for m in network.modules() if isinstance(m, base) and m.running_mean is not None]


@torch.no_grad()
def reestimate_(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace all running statistics by the plain means over these batches, in the network as it is now.

    Every norm normalises by its own batch while this goes on, so that the next one sees what it will see.
    The network is left in eval mode.
    """
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
