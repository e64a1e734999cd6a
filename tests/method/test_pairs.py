"""Two layers in the place of one."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basisconv import BasisConv2d, BasisLinear, InvalidRequest, SeparableConv2d, replace_
from basisconv.basis.weights import grouped_weight, weight_energies, weight_factors
from tests.method.shelf import convolutions, input_for, randomize

quick = settings(max_examples=60, deadline=None)


def full_rank(conv: nn.Conv2d) -> int:
    return min(grouped_weight(conv).shape[1:])


@quick
@given(convolutions())
def test_a_pair_at_full_rank_computes_what_the_layer_computed(conv):
    pair = BasisConv2d.from_conv(conv, full_rank(conv))
    x = input_for(conv)
    torch.testing.assert_close(pair(x), conv(x), rtol=1e-9, atol=1e-10)


@quick
@given(convolutions(), st.data())
def test_a_pair_at_any_rank_folds_back_into_one_layer_with_the_same_outputs(conv, data):
    pair = BasisConv2d.from_conv(conv, data.draw(st.integers(1, full_rank(conv))))
    dense, x = pair.to_dense(), input_for(conv)
    assert type(dense) is nn.Conv2d
    torch.testing.assert_close(pair(x), dense(x), rtol=1e-9, atol=1e-10)
    assert [dense.stride, dense.padding, dense.dilation, dense.groups, dense.padding_mode] == [
        conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    ]  # fmt: skip


@quick
@given(convolutions(), st.data())
def test_what_a_truncation_discards_is_exactly_the_dropped_energy(conv, data):
    rank = data.draw(st.integers(1, full_rank(conv)))
    lost = (grouped_weight(conv) - grouped_weight(BasisConv2d.from_conv(conv, rank).to_dense())).square()
    energies = weight_energies(conv)
    torch.testing.assert_close(lost.sum(), energies[rank:].sum(), rtol=1e-8, atol=1e-10)


@quick
@given(convolutions(), st.sampled_from(["kx1_1xk", "1xk_kx1"]), st.data())
def test_a_separable_pair_is_exact_at_full_rank_and_folds_back_at_any(conv, form, data):
    if conv.groups > 1 or 1 in conv.kernel_size:
        with pytest.raises(InvalidRequest):
            SeparableConv2d.from_conv(conv, 1, form)
        return
    a, b = conv.kernel_size if form == "kx1_1xk" else conv.kernel_size[::-1]
    most = min(conv.in_channels * a, conv.out_channels * b)
    x = input_for(conv)
    whole = SeparableConv2d.from_conv(conv, most, form)
    torch.testing.assert_close(whole(x), conv(x), rtol=1e-8, atol=1e-9)
    part = SeparableConv2d.from_conv(conv, data.draw(st.integers(1, most)), form)
    torch.testing.assert_close(part(x), part.to_dense()(x), rtol=1e-8, atol=1e-9)
    assert part.form == form


@given(st.integers(1, 20), st.integers(1, 20), st.booleans())
@quick
def test_a_linear_pair_is_exact_at_full_rank_and_folds_back(inputs, outputs, bias):
    linear = randomize(nn.Linear(inputs, outputs, bias)).double()
    pair = BasisLinear.from_linear(linear, min(inputs, outputs))
    x = torch.linspace(-1, 1, 3 * 5 * inputs, dtype=torch.float64).reshape(3, 5, inputs)
    torch.testing.assert_close(pair(x), linear(x), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(pair.to_dense()(x), linear(x), rtol=1e-9, atol=1e-10)


@quick
@given(convolutions(), st.floats(1e-20, 1e20))
def test_basis_filters_are_orthonormal_whatever_the_weights_scale(conv, scale):
    conv.weight.data *= scale
    basis, mixing = weight_factors(conv, full_rank(conv))
    eye = torch.eye(basis.shape[1], dtype=torch.float64).expand(len(basis), -1, -1)
    torch.testing.assert_close(basis @ basis.mT, eye, rtol=0, atol=1e-10)
    torch.testing.assert_close(mixing @ basis, grouped_weight(conv), rtol=1e-9, atol=1e-11 * scale)


def test_more_rank_never_loses_more():
    conv = randomize(nn.Conv2d(6, 8, 3)).double()
    lost = [
        float((conv.weight - BasisConv2d.from_conv(conv, r).to_dense().weight).square().sum())
        for r in range(1, 9)
    ]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(lost))
    assert lost[-1] < 1e-20


def test_the_signs_do_not_depend_on_the_weights_sign():
    conv = randomize(nn.Conv2d(4, 6, 3))
    negated = copy.deepcopy(conv)
    negated.weight.data *= -1
    first, second = weight_factors(conv, 4)[0], weight_factors(negated, 4)[0]
    torch.testing.assert_close(first, second)
    assert (first.gather(-1, first.abs().argmax(-1, keepdim=True)) > 0).all()


def test_zero_and_rank_deficient_weights_are_represented_exactly():
    conv = randomize(nn.Conv2d(4, 6, 3))
    conv.weight.data[2:] = conv.weight.data[:1] * 2  # rank 2
    torch.testing.assert_close(BasisConv2d.from_conv(conv, 2).to_dense().weight, conv.weight)
    torch.testing.assert_close(BasisConv2d.from_conv(conv, 5).to_dense().weight, conv.weight)
    conv.weight.data.zero_()
    assert BasisConv2d.from_conv(conv, 3).to_dense().weight.abs().max() == 0
    assert SeparableConv2d.from_conv(conv, 3).to_dense().weight.abs().max() == 0


@pytest.mark.parametrize("rank", [0, 28, -1])
def test_an_impossible_rank_is_refused_with_the_possible_ones(rank):
    with pytest.raises(InvalidRequest, match=rf"\[1, 27\] for weight \(64, 3, 3, 3\), got {rank}"):
        BasisConv2d.from_conv(nn.Conv2d(3, 64, 3), rank)


def test_only_the_second_layer_has_a_bias_and_only_if_the_layer_had_one():
    with_bias = BasisConv2d.from_conv(nn.Conv2d(3, 8, 3), 4)
    without = BasisConv2d.from_conv(nn.Conv2d(3, 8, 3, bias=False), 4)
    assert with_bias.basis.bias is None
    assert with_bias.mixing.bias is not None
    assert without.mixing.bias is None


def test_replacing_keeps_the_mode_and_reaches_every_place_of_a_shared_module():
    shared = nn.Conv2d(3, 8, 3)
    network = nn.Sequential(nn.ModuleDict({"a": shared, "b": shared}), nn.ReLU()).eval()
    pair = BasisConv2d.from_conv(shared, 2)
    replace_(network, {"0.a": pair})
    assert network[0]["a"] is pair
    assert network[0]["b"] is pair
    assert not pair.training


def test_replacing_an_unknown_layer_changes_nothing():
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(InvalidRequest, match="'1'"):
        replace_(network, {"0": nn.Identity(), "1": nn.Identity()})
    assert type(network[0]) is nn.Conv2d
