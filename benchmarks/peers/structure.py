"""A changed network as JSON and safetensors: which layers stand where, and their weights. No pickle.

Every convolution, linear and batch-norm layer of the original that another layer, or a row of layers, has
taken the place of is listed under its path; the rest is as the original's architecture has it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

ARGUMENTS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Conv2d": (
        nn.Conv2d,
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    ),
    "Linear": (nn.Linear, ("in_features", "out_features")),
    "BatchNorm2d": (nn.BatchNorm2d, ("num_features", "eps")),
}
Spec = dict[str, Any]


def describe(original: nn.Module, changed: nn.Module) -> dict[str, list[Spec]]:
    """Path in the original -> the layers that stand there now, first to last."""
    found = {}
    for path, layer in original.named_modules():
        if type(layer).__name__ not in ARGUMENTS:
            continue
        now = changed.get_submodule(path)
        specs = [_spec(part) for part in (now if isinstance(now, nn.Sequential) else [now])]
        if specs != [_spec(layer)]:
            found[path] = specs
    return found


def rebuild_(network: nn.Module, structure: Mapping[str, Sequence[Spec]]) -> nn.Module:
    """Give the original's architecture the changed structure, in place; its weights are then to be loaded."""
    for path, specs in structure.items():
        layers = [_layer(spec) for spec in specs]
        parent, _, name = path.rpartition(".")
        setattr(
            network.get_submodule(parent), name, layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        )
    return network.eval()


def save(network: nn.Module, path: Path) -> None:
    save_file(
        {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}, path
    )


def load_(network: nn.Module, path: Path) -> nn.Module:
    network.load_state_dict(load_file(path))
    return network


def _spec(layer: nn.Module) -> Spec:
    kind = type(layer).__name__
    values = {name: getattr(layer, name) for name in ARGUMENTS[kind][1]}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    has_bias = {} if kind == "BatchNorm2d" else {"bias": layer.bias is not None}
    return {"kind": kind, **plain, **has_bias}


def _layer(spec: Spec) -> nn.Module:
    arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in spec.items() if name != "kind"}
    return ARGUMENTS[spec["kind"]][0](**arguments)
