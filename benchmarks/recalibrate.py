"""Batch-norm statistics measured anew on the calibration images: free, label-free, and often worth tens of
points to networks that were truncated by their weights. Every peer gets it; the held-back train images
decide whether it is kept.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 128


def recalibrated(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose batch norms hold the mean statistics of the images' batches."""
    fresh = copy.deepcopy(network).eval()
    norms = [child for child in fresh.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    with torch.no_grad():
        for batch in images.split(BATCH):
            fresh(batch)
    return fresh.eval()


@torch.no_grad()
def divergence(network: nn.Module, original: nn.Module, images: Tensor) -> float:
    """Mean KL(original || network) in nats."""
    total = 0.0
    for batch in images.split(BATCH):
        wanted = F.log_softmax(original(batch).double(), 1)
        found = F.log_softmax(network(batch).double(), 1)
        total += float((wanted.exp() * (wanted - found)).sum())
    return total / len(images)
