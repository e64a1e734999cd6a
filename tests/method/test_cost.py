"""What a network costs and which layers can become cheaper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from basisconv import BasisConv2d, MalformedWeights, SeparableConv2d, check_weights, count, describe, replace_
from basisconv.cost import break_even_rank, form_cost, sites
from tests.method.shelf import Mixed, Residual, convolutions, input_for
from tests.support.networks import NO_DATA, has_data, load


def independent_macs(network: nn.Module, example: Tensor) -> int:
    """Counted by torch's own flop counter (2 per multiply-accumulate), which knows nothing of ours."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(example)
    return counter.get_total_flops() // 2


def test_macs_agree_with_torchs_own_counter():
    for network, channels in ((Residual(), 3), (Mixed(), 4)):
        network.eval()
        example = torch.zeros(1, channels, 12, 12)
        assert count(network, example).macs == independent_macs(network, example)


def test_macs_are_of_one_image_whatever_the_examples_batch():
    network = Residual().eval()
    assert count(network, torch.zeros(5, 3, 12, 12)).macs == count(network, torch.zeros(1, 3, 12, 12)).macs


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.sampled_from(["basis", "kx1_1xk", "1xk_kx1"]), st.integers(1, 3))
def test_a_forms_predicted_cost_is_the_built_pairs_cost(conv, form, rank):
    if form != "basis" and (conv.groups > 1 or 1 in conv.kernel_size):
        return
    network, example = nn.Sequential(conv), input_for(conv, 1)
    predicted = form_cost(sites(network, example)[0], form, rank, conv.bias is not None)
    if form == "basis":
        pair = BasisConv2d.like(conv, rank, conv.bias is not None)
    else:
        pair = SeparableConv2d.like(conv, form, rank, conv.bias is not None)
    replace_(network, {"0": pair})
    costs = count(network, example)
    assert (costs.macs, costs.params) == (predicted.macs, predicted.params)
    assert costs.layers["0"] == predicted


@given(st.integers(1, 600), st.integers(1, 600))
def test_break_even_is_the_largest_rank_that_pays(outputs, inputs):
    rank = break_even_rank(outputs, inputs)
    dense = outputs * inputs
    assert rank == 0 or rank * (inputs + outputs) < dense
    assert (rank + 1) * (inputs + outputs) >= dense


def test_every_layer_that_cannot_pay_says_why():
    reasons = {layer.name: layer.reason for layer in describe(Mixed().eval(), torch.zeros(1, 4, 12, 12))}
    assert reasons == {
        "grouped": None,
        "depthwise": "depthwise",
        "dilated": None,
        "strided": None,
        "pointwise": None,
        "narrow": None,
        "head": None,
    }
    odd = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv2d(4, 1, 1),
        nn.Flatten(2),
        nn.Conv1d(1, 2, 3),
    )
    layers = describe(odd.eval(), torch.zeros(1, 3, 5, 5))
    assert [layer.reason for layer in layers] == [
        "unsupported_kind", "grouped_never_pays", "never_cheaper", "unsupported_kind"
    ]  # fmt: skip
    assert not any(layer.compressible for layer in layers)


class Shares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.b.weight = self.a.weight
        self.unused = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.twice(self.twice(x))))


def test_layers_that_share_weights_are_left_alone_and_layers_called_twice_counted_right():
    example = torch.zeros(1, 8, 6, 6)
    network = Shares().eval()
    layers = {layer.name: layer for layer in describe(network, example)}
    assert list(layers) == ["twice", "a", "b"]  # what never runs is not in the table
    assert [layer.reason for layer in layers.values()] == [
        None, "shared_weights", "shared_weights"
    ]  # fmt: skip
    assert layers["twice"].calls == 2
    assert layers["twice"].macs == 2 * 36 * 8 * 8 * 9
    assert count(network, example).params == 4 * 8 + 3 * 8 * 8 * 9


def test_frozen_basis_filters_are_stored_but_not_learnable():
    network = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False))
    replace_(network, {"0": BasisConv2d.from_conv(network[0], 8)})
    costs = count(network, torch.zeros(1, 16, 8, 8))
    assert costs.params == 8 * (144 + 16)
    assert costs.learnable_params == 8 * 16


def test_counting_leaves_modes_and_gradients_as_they_were():
    network = Residual()
    network.block1.bn1.eval()
    count(network, torch.zeros(2, 3, 12, 12))
    assert network.training
    assert not network.block1.bn1.training


def test_nan_and_infinite_weights_are_named():
    network = Residual()
    network.block2.conv1.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(MalformedWeights) as caught:
        check_weights(network)
    assert caught.value.code == "malformed_model"
    assert caught.value.layer == "block2.conv1"


@pytest.mark.data
@pytest.mark.skipif(not has_data(), reason=NO_DATA)
def test_a_published_network_has_its_published_size():
    costs = count(load("cifar10_resnet20_a"), torch.zeros(1, 3, 32, 32))
    assert (costs.macs, costs.params, costs.learnable_params) == (40_551_040, 269_722, 269_722)
    layer = describe(load("cifar10_resnet20_a"), torch.zeros(1, 3, 32, 32))[1]
    assert (layer.name, layer.macs, layer.params) == ("layer1.0.conv1", 2_359_296, 2304)
    assert (layer.max_rank, layer.break_even_rank, layer.output_size) == (16, 14, (32, 32))
