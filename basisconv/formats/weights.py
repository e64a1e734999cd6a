"""The compressed weights as safetensors, and the recipe that says which network they belong into.

``safetensors`` + ``recipe.json`` need nobody's exporter: `read` gives the original network the recipe's
structure and loads the weights into it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx

from basisconv.errors import InvalidRequest
from basisconv.formats.network import Network
from basisconv.recipe import apply_, describe_structure, unstored


def write(network: Network, compressed: fx.GraphModule, path: Path) -> dict[str, Any]:
    """Write the weights; gives the recipe, JSON-able, which the caller stores beside them.

    Filters that the recipe tells by a seed are not written: of a network trained from scratch the file
    holds what was learned (and the batch norms' statistics) only.

    Tensor names are those of the module's state: `layer1.0.conv1.basis.weight` and so on. Every layer's
    entry in the recipe has its public `name` beside the submodule's `path`.
    """
    recipe = describe_structure(compressed)
    left_out = unstored(recipe)
    state = compressed.state_dict()
    tensors = {name: _plain(value) for name, value in state.items() if name not in left_out}
    save_file(tensors, path, metadata={"format": "pt"})  # one entry: of several the order is random
    public = network.public()
    layers = [{"name": public.get(entry["path"], entry["path"]), **entry} for entry in recipe["layers"]]
    return {
        **recipe,
        "source_format": network.format,
        "input": {"name": network.input_name, "shape": list(network.input_shape)},
        "layers": layers,
    }


def read(network: Network, path: Path, recipe: Path) -> fx.GraphModule:
    """The compressed network: `network`'s module with the recipe's structure and the stored weights.

    Raises InvalidRequest where the recipe or the weights do not fit the network.
    """
    module = copy.deepcopy(network.module).to("cpu")
    told = json.loads(recipe.read_text())
    apply_(module, told)
    absent, unexpected = module.load_state_dict(load_file(path), strict=False)
    missing = sorted(set(absent) - unstored(told))
    if missing or unexpected:
        raise InvalidRequest(
            f"the weights do not fit: {len(missing)} are missing and {len(unexpected)} unknown "
            f"({', '.join([*missing, *unexpected][:3])})"
        )
    return module.eval()


def _plain(value: Tensor) -> Tensor:
    """On the CPU, in torch's own memory order and sharing memory with no other tensor, as the format asks."""
    return value.detach().to("cpu").contiguous().clone(memory_format=torch.contiguous_format)
