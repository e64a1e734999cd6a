"""Channel pruning along dependency groups (Torch-Pruning; DepGraph, Fang et al. 2023).

Group magnitude, global ranking, its own defaults. On ResNets whose shortcuts pad with zero channels only
the channels inside the blocks can go: the package follows no padding of channels.
"""

import copy
from collections.abc import Iterator

import torch_pruning
from torch import nn

from basisconv.cost import count
from benchmarks.peers.task import PeerTask
from tests.support.networks import BasicBlock

STEPS = 400  # of one global ranking: each removes 1/400 of the channels


def compress(task: PeerTask) -> Iterator[tuple[float, nn.Module]]:
    """One network for each budget of the task, all on the way of a single ranking."""
    network = copy.deepcopy(task.original)
    pruner = torch_pruning.pruner.BasePruner(
        network,
        task.example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=1.0,
        max_pruning_ratio=0.98,
        iterative_steps=STEPS,
        ignored_layers=_kept(network),
    )
    waiting = sorted(task.cuts)
    for _ in range(STEPS):
        macs = count(network, task.example).macs  # the package's own count has batch norms in it
        while waiting and macs <= task.macs * (1 - waiting[0]):
            yield waiting.pop(0), copy.deepcopy(network).eval()
        if not waiting:
            return
        pruner.step()


def _kept(network: nn.Module) -> list[nn.Module]:
    """The outputs, and where shortcuts pad channels, everything that writes onto them."""
    kept: list[nn.Module] = [child for child in network.modules() if isinstance(child, nn.Linear)]
    blocks = [child for child in network.modules() if isinstance(child, BasicBlock)]
    if any(block.pad for block in blocks):
        kept += [network.get_submodule("conv1"), *(block.conv2 for block in blocks)]
    return kept
