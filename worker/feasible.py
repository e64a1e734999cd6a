"""Whether a budget can be met at all, from the layer table alone: told before anything long begins."""

import math

from torch import Tensor, fx

from basisconv.config import DecomposeConfig
from basisconv.cost import Costs, Site, form_cost, sites
from basisconv.errors import InfeasibleTarget
from basisconv.nn import Form
from basisconv.options import cheaper, separable
from basisconv.plan import candidates, check_request


def check(module: fx.GraphModule, example: Tensor, costs: Costs, config: DecomposeConfig) -> None:
    """Raise InfeasibleTarget when every open layer at its smallest rank still costs more than the budget."""
    found = sites(module, example)
    check_request(found, config)
    if config.target_kind not in ("macs", "params") or not isinstance(config.target_value, int | float):
        return
    unit = "macs" if config.target_kind == "macs" else "params"
    total: int = getattr(costs, unit)
    least = total
    for site in candidates(found, config):
        now: int = getattr(site.layer, unit)
        least -= now - min([now, *_smallest(site, config, unit)])
    if least > math.floor(total * config.target_value + 1e-6):
        share = math.ceil(least / total * 1e4) / 1e4
        raise InfeasibleTarget(
            f"The target keeps {config.target_value:.1%} of {total:,} {unit}; with every layer that may "
            f"change at its smallest rank {share:.2%} remain.",
            achievable=share,
            hint="Ask for a larger share, or let more layers change.",
        )


def _smallest(site: Site, config: DecomposeConfig, unit: str) -> list[int]:
    """What each form costs at its smallest rank, where that is cheaper than the layer."""
    forms: list[Form] = ["basis"]
    if config.forms == "auto" and separable(site):
        forms += ["kx1_1xk", "1xk_kx1"]
    rank = config.rank_multiple if config.rank_multiple < site.layer.max_rank else 1
    bias = config.basis == "activations" or site.target.bias is not None
    costs = [form_cost(site, form, rank, bias) for form in forms]
    return [getattr(cost, unit) for cost in costs if cheaper(site, cost.macs, cost.params)]
