"""Tucker-2 of the filters by HOOI (TensorLy's partial_tucker): 1x1, k x k, 1x1 (Kim et al. 2016).

Shapes: O out channels, I in channels, k x k kernel, R ranks.

Every convolution wider than 1x1 but the first (3 channels) keeps the same share of its channels on both
sides, the largest with which the network meets the budget; layers that would not get cheaper stay.
"""

from collections.abc import Iterator, Sequence

import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch import Tensor, nn

from benchmarks.peers.search import largest
from benchmarks.peers.task import PeerTask, Site, changed, sites

Ranks = tuple[int, int]
tensorly.set_backend("pytorch")


def compress(task: PeerTask) -> Iterator[tuple[float, nn.Module]]:
    """One network for each budget of the task."""
    open_sites = [site for site in sites(task) if _open(site)]
    for cut in task.cuts:
        chosen = choose(open_sites, task.macs, task.macs * (1 - cut))
        layers = {site.path: tucker2(site.conv, r) for site, r in chosen.items() if _saved(site, r) < 0}
        yield cut, changed(task.original, layers)


def choose(open_sites: Sequence[Site], macs: int, budget: float) -> dict[Site, Ranks]:
    """The largest common share, and what its rounding leaves over one rank at a time from the front.

    Without the second step 16 channels would waste up to a sixteenth of the budget.
    """

    def at(share: float) -> dict[Site, Ranks]:
        return {site: _ranks(site, share) for site in open_sites}

    def total(ranks: dict[Site, Ranks]) -> int:
        return macs + sum(_saved(site, r) for site, r in ranks.items())

    chosen = at(largest(lambda share: total(at(share)) <= budget))
    for site, (out, inputs) in list(chosen.items()):
        more = chosen | {site: (min(out + 1, site.conv.out_channels), min(inputs + 1, site.conv.in_channels))}
        chosen = more if total(more) <= budget else chosen
    return chosen


def tucker2(conv: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
    """The three convolutions, by TensorLy's own start (SVD) and its own number of iterations (100)."""
    (core, (out, inputs)), _ = partial_tucker(
        conv.weight.detach().double(), rank=list(ranks), modes=[0, 1], init="svd"
    )
    first = nn.Conv2d(conv.in_channels, ranks[1], 1, bias=False)
    middle = nn.Conv2d(
        ranks[1], ranks[0], conv.kernel_size, conv.stride, conv.padding, conv.dilation, bias=False
    )
    last = nn.Conv2d(ranks[0], conv.out_channels, 1, bias=conv.bias is not None)
    _fill(first, inputs.T[:, :, None, None])
    _fill(middle, core)
    _fill(last, out[:, :, None, None])
    if conv.bias is not None and last.bias is not None:
        last.bias.data.copy_(conv.bias.data)
    return nn.Sequential(first, middle, last)


def _fill(conv: nn.Conv2d, weight: Tensor) -> None:
    with torch.no_grad():
        conv.weight.copy_(weight)


def _open(site: Site) -> bool:
    return site.conv.kernel_size != (1, 1) and site.conv.groups == 1 and site.conv.in_channels > 3


def _ranks(site: Site, share: float) -> Ranks:
    return max(1, round(share * site.conv.out_channels)), max(1, round(share * site.conv.in_channels))


def _saved(site: Site, ranks: Ranks) -> int:
    """The change in MACs, never above zero: a layer that would get dearer stays."""
    out, inputs = ranks
    conv = site.conv
    area = conv.kernel_size[0] * conv.kernel_size[1]
    now = site.inputs * conv.in_channels * inputs + site.outputs * out * (inputs * area + conv.out_channels)
    return min(0, now - site.macs)
