"""Give a network the from-scratch form in place: fixed random filters, fresh learned weights."""

from torch import Tensor, nn

from basisconv.basis.random import Drawn
from basisconv.config import Decomposition, LayerOutcome
from basisconv.cost import Site, count, sites
from basisconv.nn import BasisConv2d, BasisLinear, Factorized
from basisconv.scratch.config import ScratchConfig
from basisconv.scratch.initialise import fresh_, unit_variance_
from basisconv.scratch.plan import Ranks, choose, why_kept
from basisconv.surgery import replace_


def check(module: nn.Module, example: Tensor, config: ScratchConfig) -> Ranks:
    """Filters per layer, when the request fits the network and its budgets can be met.

    Raises InvalidRequest and InfeasibleTarget (with `achievable`).
    """
    return choose(sites(module, example), count(module, example), config)


def randomize_(
    module: nn.Module, example: Tensor, config: ScratchConfig, images: Tensor | None = None
) -> Decomposition:
    """Turn the structure of `module` into its from-scratch form, in place; its weights are forgotten.

    Every spatial convolution becomes random orthonormal filters, fixed and remembered by (seed, path), and
    a 1x1 mixing that learns (BasisConv, arXiv 1906.04509). Everything that learns starts afresh; batch norms
    are reset. `example`: an input batch N x C x H x W. `images`: some preprocessed training images, for a
    start at which every layer answers with variance 1; without them the start is He's.

    Raises, before anything changes: InvalidRequest (a value that does not fit) and InfeasibleTarget (with
    `achievable`; budgets are never exceeded).
    """
    found = sites(module, example)
    ranks = choose(found, count(module, example), config)
    replace_(module, {s.layer.name: _pair(s, ranks, config) for s in found if s.layer.name in ranks})
    fresh_(module, config.seed)
    if images is not None:
        unit_variance_(module, images)
    outcomes = [_outcome(site, ranks, config) for site in found]
    return Decomposition(outcomes, count(module, example))


def _pair(site: Site, ranks: Ranks, config: ScratchConfig) -> Factorized:
    layer, path = site.target, site.layer.name
    bias, drawn = layer.bias is not None, Drawn(config.seed, path)
    if isinstance(layer, nn.Linear):
        return BasisLinear.like(layer, ranks[path], bias).draw_(drawn)
    return BasisConv2d.like(layer, ranks[path], bias).draw_(drawn)


def _outcome(site: Site, ranks: Ranks, config: ScratchConfig) -> LayerOutcome:
    name = site.layer.name
    if name in ranks:
        return LayerOutcome(name, "basis", ranks[name], True, None, None)
    return LayerOutcome(name, "dense", None, False, why_kept(site, config), None)
