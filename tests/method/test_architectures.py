"""Any architecture: no layer without a reason, the budget held, and everything finite."""

import copy
import itertools
from collections.abc import Generator
from functools import cache
from typing import TypeVar, cast

import pytest
import torch
from torch import Tensor, nn

from basisconv import (
    BasisConv2d,
    BasisLinear,
    DecomposeConfig,
    InfeasibleTarget,
    Progress,
    Reason,
    count,
    decompose_,
    describe,
    replace_,
)
from basisconv.front_to_back import fit_
from basisconv.measure import measure
from basisconv.options import Measured
from basisconv.outputs import output_tensors
from basisconv.plan import plan
from tests.support.architectures import ALL, IMAGES, build, inputs

T = TypeVar("T")
SHARES = (1.0, 0.8, 0.4)


def outputs(network: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return output_tensors(network(x))


def energy_lost(network: nn.Module, original: nn.Module, x: Tensor) -> float:
    """Share of the outputs' variance over the images that is missed, the outputs counting alike."""
    pairs = zip(outputs(original, x), outputs(network, x), strict=True)
    shares = [float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum()) for y, y_hat in pairs]
    return sum(shares) / len(shares)


def finish(steps: Generator[Progress, None, T]) -> T:
    """What the steps return at their end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


@cache
def measured(name: str) -> tuple[nn.Module, Measured]:
    """A network and what 32 images say of it, for all tests; the network is never changed."""
    network, x = build(name), inputs(name, 32)
    config = DecomposeConfig(target_value=1.0)
    return network, finish(measure(network, x[:1], config, lambda: iter(x.split(16))))


def compressed(name: str, share: float) -> tuple[nn.Module, list[str]]:
    """A copy at this share of the operations, and the reasons of the layers that stay."""
    original, found = measured(name)
    network, x = copy.deepcopy(original), inputs(name, 32)
    chosen = plan(found, DecomposeConfig(target_value=share))
    end = finish(fit_(network, x[:1], found, chosen, lambda: iter(x.split(16))))
    assert all(layer.replaced == (layer.reason is None) for layer in end.layers)
    return network, [layer.reason for layer in end.layers if layer.reason is not None]


@pytest.mark.parametrize("name", ALL)
def test_every_layer_can_be_replaced_or_says_why_not(name):
    network = build(name)
    layers = {layer.name: layer for layer in describe(network, inputs(name, 1))}
    reached = {
        path for path, m in network.named_modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)
    }
    assert set(layers) == reached
    expected = {path: str(why_not(network.get_submodule(path)) or "") for path in layers}
    assert {path: layer.reason or "" for path, layer in layers.items()} == expected


def why_not(layer: nn.Module) -> Reason | None:
    """Worked out again: by kind, and by the smallest rank's cost."""
    if type(layer) not in (nn.Conv2d, nn.Linear):
        return Reason.UNSUPPORTED_KIND
    groups = getattr(layer, "groups", 1)
    one_rank = groups * (layer.weight[0].numel() + len(layer.weight) // groups)
    if one_rank < layer.weight.numel():
        return None
    return Reason.DEPTHWISE if groups == layer.in_channels > 1 else Reason.NEVER_CHEAPER


@pytest.mark.parametrize("name", ALL)
def test_at_full_rank_the_outputs_are_the_originals(name):
    original = build(name)
    network, x = copy.deepcopy(original), inputs(name, 4)
    pairs: dict[str, nn.Module] = {}
    for layer in describe(original, x[:1]):
        if layer.compressible:
            module = network.get_submodule(layer.name)
            make = BasisLinear.from_linear if isinstance(module, nn.Linear) else BasisConv2d.from_conv
            pairs[layer.name] = make(module, layer.max_rank)  # type: ignore[operator]
    assert pairs
    replace_(network, pairs)
    for y, y_hat in zip(outputs(original, x), outputs(network, x), strict=True):
        torch.testing.assert_close(y_hat, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("name", IMAGES)
def test_a_budget_is_met_and_every_layer_that_stays_says_why(name):
    original, _ = measured(name)
    x = inputs(name, 8, seed=6)
    network, reasons = compressed(name, 0.55)
    share = count(network, x[:1]).macs / count(original, x[:1]).macs
    assert 0.5 < share <= 0.55
    assert all(Reason(reason).sentence for reason in reasons)
    assert all(torch.isfinite(z).all() for z in outputs(network, x))


@pytest.mark.parametrize("name", IMAGES)
def test_predicted_harm_falls_with_the_budget_and_so_does_the_error(name):
    original, found = measured(name)
    plans = [plan(found, DecomposeConfig(target_value=share)) for share in SHARES]
    harms = [sum(choice.option.harm for choice in chosen.values()) for chosen in plans]
    assert harms == sorted(harms)
    x = inputs(name, 32)
    errors = [energy_lost(compressed(name, share)[0], original, x) for share in SHARES[1:]]
    assert 0 < errors[0] < max(errors[1], 1e-3)  # plain stacks of wide layers lose next to nothing at either
    assert errors[1] < 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_the_smallest_achievable_network_is_achieved(name, kind):
    network, example = build(name), inputs(name, 1)
    before = getattr(count(network, example), kind)
    with pytest.raises(InfeasibleTarget) as caught:
        list(decompose_(network, example, DecomposeConfig("weights", kind, 1e-6)))
    least = caught.value.achievable
    assert least is not None
    list(decompose_(network, example, DecomposeConfig("weights", kind, least)))
    after = getattr(count(network, example), kind)
    assert least * before - 1e-4 * before <= after <= least * before
    assert all(torch.isfinite(z).all() for z in outputs(network, inputs(name, 2)))


def test_the_harm_of_a_detectors_shared_heads_is_counted_on_every_level():
    network, _ = measured("pyramid")
    layers = {layer.name: layer for layer in describe(network, inputs("pyramid", 1))}
    heads = [layer for name, layer in layers.items() if name.startswith(("scores", "boxes"))]
    assert {layer.calls for layer in heads} == {2}
    positions = 8 * 8 + 4 * 4
    assert all(layer.macs == positions * 9 * 16 * layer.out_channels for layer in heads)
    smaller, _ = compressed("pyramid", 0.55)
    assert any(type(smaller.scores[i]) is not nn.Conv2d for i in (0, 2))


def test_errors_are_smaller_than_those_of_the_weights_alone_at_the_same_budget():
    worse = 0
    for name in itertools.islice(IMAGES, 4):
        original, _ = measured(name)
        x = inputs(name, 32, seed=9)
        by_weights = copy.deepcopy(original)
        list(decompose_(by_weights, x[:1], DecomposeConfig("weights", target_value=0.55)))
        errors = [energy_lost(network, original, x) for network in (compressed(name, 0.55)[0], by_weights)]
        worse += errors[0] > errors[1]
    assert worse == 0
