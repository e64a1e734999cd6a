"""What a network costs, layer by layer, and which layers can become cheaper.

MACs: one multiply-accumulate = 1, convolutions and linear layers, one image. Parameters: every float
that training could change: weights, biases, batch norm's gamma and beta, and float constants of the
graph; a batch norm's running statistics are measurements and are not counted (the usual figure:
269,722 for CIFAR ResNet-20, 271,098 with them).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from basisconv.errors import MalformedWeights
from basisconv.layers import Costs as Costs
from basisconv.layers import Layer as Layer
from basisconv.layers import LayerCost as LayerCost
from basisconv.nn import Factorized, Form
from basisconv.reasons import Reason
from basisconv.watch import Call, Watched, watch
from basisconv.watch import evaluating as evaluating  # its users know it from here

_KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv2d",
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}
LAYERS = tuple(_KINDS)
"""The classes of the layer table."""
_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Site:
    """A layer where it stands in the network: what the method needs beyond the table's row.

    `images`: of the example that the calls are of.
    """

    layer: Layer
    module: nn.Module
    calls: tuple[Call, ...]
    images: int

    @property
    def target(self) -> nn.Conv2d | nn.Linear:
        """The module, known to be compressible."""
        return cast(nn.Conv2d | nn.Linear, self.module)

    def positions_between(self, axis: int) -> int:
        """Positions of one image, over all calls, after a convolution along `axis` (0, 1) alone."""
        found = 0
        for call in self.calls:
            height, width = call.output[-2:]
            images = prod(call.output) // (height * width * self.layer.out_channels)
            found += images * (height * call.input[-1] if axis == 0 else width * call.input[-2])
        return found // self.images


def break_even_rank(out_channels: int, inputs: int, groups: int = 1) -> int:
    """Largest rank per group at which R(IK + O) < O * IK; 0 if there is none.

    `inputs` is I*K of one group; `out_channels` of the whole layer.
    """
    outputs = out_channels // groups
    return max(0, (outputs * inputs - 1) // (outputs + inputs))


def describe(module: nn.Module, example: Tensor) -> list[Layer]:
    """The layer table, in the order of execution. `example`: an input batch, N x C x H x W.

    Layers that the forward pass does not reach are left out.
    """
    return [site.layer for site in sites(module, example)]


def count(module: nn.Module, example: Tensor) -> Costs:
    """Costs of an original or compressed network; `layers` holds each pair under the layer's own path."""
    pairs = {path for path, child in module.named_modules() if isinstance(child, Factorized)}
    layers: dict[str, LayerCost] = {}
    for site in sites(module, example):
        parent = site.layer.name.rpartition(".")[0]
        path = parent if parent in pairs else site.layer.name
        before = layers.get(path, LayerCost(0, 0))
        layers[path] = LayerCost(before.macs + site.layer.macs, before.params + site.layer.params)
    params = stored_params(module)
    macs = sum(layer.macs for layer in layers.values())
    return Costs(macs, params, params - _frozen_params(module), layers)


def stored_params(module: nn.Module) -> int:
    """Floats that training could change (see the top of this file); shared tensors count once."""
    statistics = {
        id(buffer)
        for child in module.modules()
        if isinstance(child, nn.modules.batchnorm._NormBase)  # noqa: SLF001 (the base of all its kinds)
        for buffer in child.buffers(recurse=False)
    }
    tensors = [*module.parameters(), *(b for b in module.buffers() if id(b) not in statistics)]
    return sum(t.numel() for t in tensors if t.is_floating_point())


def _frozen_params(module: nn.Module) -> int:
    pairs = (child for child in module.modules() if isinstance(child, Factorized) and child.freezes_first)
    return sum(pair.first.weight.numel() for pair in pairs)


def check_weights(module: nn.Module) -> None:
    """Raise MalformedWeights naming the first layer that holds NaN or infinity."""
    for path, child in module.named_modules():
        for name, tensor in [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]:
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                bad = int((~torch.isfinite(tensor)).sum())
                raise MalformedWeights(path, f"{name} holds {bad} of {tensor.numel()} values NaN or infinite")


def form_cost(site: Site, form: Form, rank: int, bias: bool) -> LayerCost:
    """Exact MACs and parameters of a pair in the layer's place, at one image."""
    layer, module = site.layer, site.module
    outputs = layer.out_channels // layer.groups
    inputs = _inputs_per_group(module)
    positions = layer.macs // (layer.groups * outputs * inputs)
    biases = layer.out_channels if bias else 0
    if form == "basis":
        weights = layer.groups * rank * (inputs + outputs)
        return LayerCost(positions * weights, weights + biases)
    axis = 0 if form == "kx1_1xk" else 1
    first = rank * layer.in_channels * layer.kernel_size[axis]
    second = rank * layer.out_channels * layer.kernel_size[1 - axis]
    between = site.positions_between(axis)
    return LayerCost(between * first + positions * second, first + second + biases)


def _inputs_per_group(module: nn.Module) -> int:
    return cast(nn.Conv2d | nn.Linear, module).weight[0].numel()


def sites(module: nn.Module, example: Tensor) -> list[Site]:
    """Every convolution and linear layer that the forward pass reaches, in order."""
    paths = {child: path for path, child in module.named_modules()}
    seen = watch(module, LAYERS, example)
    owners, guarded = _owners(module, set(seen.calls)), _guarded(module)
    return [_site(paths[child], child, seen, owners, child in guarded, len(example)) for child in seen.calls]


def _site(
    path: str, child: nn.Module, seen: Watched, owners: Counter[int], guarded: bool, images: int
) -> Site:
    kind = next(name for cls, name in _KINDS.items() if isinstance(child, cls))
    linear, calls = kind == "linear", seen.calls[child]
    weight = cast(Tensor, child.weight)
    groups = cast(int, getattr(child, "groups", 1))
    inputs = weight[0].numel()
    out_channels = cast(int, child.out_features if linear else child.out_channels)
    even = break_even_rank(out_channels, inputs, groups)
    reason = _reason(child, kind, even)
    if reason is None and (guarded or child in seen.hooked):
        reason = Reason.CUSTOM_LAYER
    if reason is None and (child in seen.read or owners[_address(weight)] > 1):
        reason = Reason.SHARED_WEIGHTS
    ones, spatial = (1, 1), weight.dim() - 2
    layer = Layer(
        name=path,
        kind=kind,
        in_channels=cast(int, child.in_features if linear else child.in_channels),
        out_channels=out_channels,
        kernel_size=ones if linear else tuple(cast(tuple[int, ...], child.kernel_size)),
        stride=ones if linear else tuple(cast(tuple[int, ...], child.stride)),
        groups=groups,
        output_size=(ones + calls[0].output[1:-1])[-2:] if linear else calls[0].output[-spatial:],
        macs=_macs(weight, calls, kind.startswith("conv_transpose")) // images,
        params=sum(p.numel() for p in child.parameters()),
        max_rank=min(out_channels // groups, inputs),
        break_even_rank=even,
        compressible=reason is None,
        reason=reason.value if reason else None,
        calls=len(calls),
    )
    return Site(layer, child, tuple(calls), images)


def _macs(weight: Tensor, calls: Sequence[Call], transposed: bool) -> int:
    """Each output value sees one filter; of a transposed convolution each input value meets one."""
    met = [prod(call.input if transposed else call.output) for call in calls]
    return sum(met) * weight[0].numel()


def _owners(module: nn.Module, reached: set[nn.Module]) -> Counter[int]:
    """How many modules hold the same numbers; layers of our kinds only where they run."""
    holders = [m for m in module.modules() if m in reached or not isinstance(m, LAYERS)]
    return Counter(_address(p) for m in holders for p in m.parameters(recurse=False))


def _guarded(module: nn.Module) -> set[nn.Module]:
    """Parts of torch's own composites (attention, transformer layers), which take their parts' weights."""
    theirs = [m for m in module.modules() if type(m).__module__.startswith("torch.nn.modules.")]
    composites = [m for m in theirs if type(m) not in _CONTAINERS]
    return {part for m in composites for part in m.modules() if part is not m}


def _address(tensor: Tensor) -> int:
    """The same for views that begin at the same number, as tied layers of two kinds have."""
    return tensor.data_ptr() or id(tensor)


def _reason(child: nn.Module, kind: str, even: int) -> Reason | None:
    if kind not in ("conv2d", "linear"):
        return Reason.UNSUPPORTED_KIND
    if type(child) not in _KINDS or _is_computed(child):
        return Reason.CUSTOM_LAYER
    return _never(child) if even < 1 else None


def _is_computed(child: nn.Module) -> bool:
    """Whether other numbers than the stored weight decide: a parametrization, or a weight set by somebody."""
    return parametrize.is_parametrized(child) or "weight" not in dict(child.named_parameters(recurse=False))


def _never(child: nn.Module) -> Reason:
    groups = cast(int, getattr(child, "groups", 1))
    if groups == 1:
        return Reason.NEVER_CHEAPER
    return Reason.DEPTHWISE if groups == child.in_channels else Reason.GROUPED_NEVER_PAYS
