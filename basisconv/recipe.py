"""The structure of a compressed network in JSON: enough to rebuild it, so that its weights load.

A basis that is still as its seed drew it is told by that seed: its filters need not be stored.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from basisconv.basis.random import SCHEME, Drawn
from basisconv.errors import InvalidRequest
from basisconv.nn import FORMS, BasisConv2d, BasisLinear, Factorized, SeparableConv2d
from basisconv.surgery import replace_

VERSION = 1


def describe_structure(module: nn.Module) -> dict[str, Any]:
    """JSON-able: for every replaced layer its path, form, rank and the shapes of its two weights.

    A random basis adds `random`: scheme, seed and key of basis/random.py, and the SHA-256 of its float32
    numbers, by which a reader knows that it drew the same.
    """
    pairs = [(path, child) for path, child in module.named_modules() if isinstance(child, Factorized)]
    return {"version": VERSION, "layers": [_entry(path, pair) for path, pair in pairs]}


def _entry(path: str, pair: Factorized) -> dict[str, Any]:
    entry = {
        "path": path,
        "form": pair.form,
        "rank": pair.rank,
        "bias": pair.second.bias is not None,
        "first": {"name": _name(pair, pair.first), "shape": list(pair.first.weight.shape)},
        "second": {"name": _name(pair, pair.second), "shape": list(pair.second.weight.shape)},
    }
    return entry | _random(pair)


def _random(pair: Factorized) -> dict[str, Any]:
    if pair.drawn is None or not pair.is_as_drawn:
        return {}
    drawn = {"scheme": SCHEME, "seed": pair.drawn.seed, "key": pair.drawn.key}
    return {"random": drawn | {"sha256": _sha256(pair.first.weight)}}


def _sha256(weight: Tensor) -> str:
    return hashlib.sha256(weight.detach().cpu().float().numpy().astype("<f4").tobytes()).hexdigest()


def unstored(recipe: Mapping[str, Any]) -> set[str]:
    """Names, in the network's state, of the tensors that the recipe's seeds stand for."""
    layers = [entry for entry in recipe["layers"] if "random" in entry]
    return {f"{entry['path']}.{entry['first']['name']}.weight" for entry in layers}


def _name(pair: Factorized, factor: nn.Module) -> str:
    return next(name for name, child in pair.named_children() if child is factor)


def apply_(module: nn.Module, recipe: Mapping[str, Any]) -> nn.Module:
    """Give the original network the compressed structure in place; its weights are then to be loaded.

    Filters that the recipe tells by their seed (`unstored`) are there at once.

    Raises InvalidRequest, before anything changes, where the recipe does not fit the network.
    """
    if recipe.get("version") != VERSION:
        raise InvalidRequest(f"the recipe's version must be {VERSION}, got {recipe.get('version')!r}")
    return replace_(module, {entry["path"]: _build(module, entry) for entry in recipe["layers"]})


def _build(module: nn.Module, entry: Mapping[str, Any]) -> Factorized:
    path, form, rank = entry["path"], entry["form"], entry["rank"]
    try:
        layer = module.get_submodule(path)
    except AttributeError:
        layer = nn.Identity()
    pair: Factorized
    if form not in FORMS:
        raise InvalidRequest(f"the form must be one of {', '.join(FORMS)}, got {form!r}", layer=path)
    if isinstance(layer, nn.Linear) and form == "basis":
        pair = BasisLinear.like(layer, rank, entry["bias"])
    elif isinstance(layer, nn.Conv2d) and form == "basis":
        pair = BasisConv2d.like(layer, rank, entry["bias"])
    elif isinstance(layer, nn.Conv2d):
        pair = SeparableConv2d.like(layer, form, rank, entry["bias"])
    else:
        raise InvalidRequest(f"the network has no layer here that takes the form {form}", layer=path)
    for name, factor in (("first", pair.first), ("second", pair.second)):
        found, wanted = list(cast(nn.Conv2d, factor).weight.shape), entry[name]["shape"]
        if found != wanted:
            raise InvalidRequest(f"the {name} weight would be {found}, the recipe says {wanted}", layer=path)
    if "random" in entry:
        _draw_again_(pair, entry["random"], path)
    return pair


def _draw_again_(pair: Factorized, told: Mapping[str, Any], path: str) -> None:
    if told["scheme"] != SCHEME:
        raise InvalidRequest(f"the scheme must be {SCHEME}, got {told['scheme']!r}", layer=path)
    pair.draw_(Drawn(told["seed"], told["key"]))
    if _sha256(pair.first.weight) != told["sha256"]:
        raise InvalidRequest("the filters drawn from the seed are not those of the recipe", layer=path)
