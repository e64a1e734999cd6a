"""Put new layers where old ones were."""

from collections.abc import Mapping

from torch import nn

from basisconv.errors import InvalidRequest


def replace_(module: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Replace the submodules at these paths in place and return `module`; the train/eval mode is kept.

    A submodule that stands at several paths (the same object) is replaced at all of them. An
    `fx.GraphModule` needs no recompilation: its calls go by path.

    Raises InvalidRequest, before anything changes, for a path that does not exist.
    """
    places: dict[int, list[str]] = {}
    for path, child in module.named_modules(remove_duplicate=False):
        places.setdefault(id(child), []).append(path)
    known = dict(module.named_modules(remove_duplicate=False))
    missing = [path for path in layers if path not in known or not path]
    if missing:
        raise InvalidRequest(f"there is no layer {missing[0]!r} in the network")
    for path, layer in layers.items():
        layer.train(known[path].training)
        for place in places[id(known[path])]:
            parent, _, name = place.rpartition(".")
            setattr(module.get_submodule(parent), name, layer)
    return module
