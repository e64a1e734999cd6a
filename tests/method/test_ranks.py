"""Ranks by rule and by budget."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basisconv import InfeasibleTarget, InvalidRequest
from basisconv.basis.weights import weight_energies
from basisconv.ranks.budget import Choice, allocate, cheapest
from basisconv.ranks.energy import energy_rank
from basisconv.ranks.fraction import fraction_rank, round_rank
from tests.support.networks import NO_DATA, has_data, load

ORACLE = [
    *[3, 4, 5, 5, 5, 5, 6, 5, 5, 6, 5, 5, 5, 5, 5, 5, 4, 4, 4],
    *[9, 11, 10, 11, 11, 12, 10, 12, 11, 12, 11, 12, 11, 11, 11, 12, 11, 10],
    *[19, 24, 23, 24, 23, 23, 25, 23, 25, 22, 25, 19, 22, 17, 19, 12, 13, 7],
]


@pytest.mark.data
@pytest.mark.skipif(not has_data(), reason=NO_DATA)
def test_the_energy_rule_gives_the_ranks_worked_out_by_others():
    convs = [m for m in load("cifar10_resnet56_a").modules() if isinstance(m, nn.Conv2d)]
    assert [energy_rank(weight_energies(conv), 0.63) for conv in convs] == ORACLE


energies = st.lists(st.floats(0, 1e6), min_size=1, max_size=30).map(
    lambda e: torch.tensor(sorted(e)[::-1]).double()
)


@given(energies, st.floats(0.01, 1))
def test_the_energy_rank_is_the_smallest_that_reaches_the_threshold(spectrum, threshold):
    rank, total = energy_rank(spectrum, threshold), float(spectrum.sum())
    assert 1 <= rank <= len(spectrum)
    if total > 0:
        assert float(spectrum[:rank].sum()) >= threshold * total * (1 - 1e-9)
        assert rank == 1 or float(spectrum[: rank - 1].sum()) < threshold * total


@pytest.mark.parametrize("value", [0.0, 1.01, -1.0, float("nan")])
def test_thresholds_and_fractions_outside_their_range_are_refused(value):
    with pytest.raises(InvalidRequest):
        energy_rank(torch.ones(3), value)
    with pytest.raises(InvalidRequest):
        fraction_rank(16, value)


def test_fractions_round_to_the_nearest_rank_and_multiples_round_up_within_the_layer():
    assert [fraction_rank(16, f) for f in (0.01, 0.5, 0.53125, 1.0)] == [1, 8, 9, 16]
    assert [round_rank(r, 8, 20) for r in (1, 8, 9, 17, 20)] == [8, 8, 16, 20, 20]


tables = st.lists(
    st.lists(st.builds(Choice, st.integers(0, 50), st.floats(0, 100)), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200)
@given(tables, st.integers(0, 200))
def test_a_budget_is_never_exceeded_and_no_other_choice_does_less_harm(layers, budget):
    if cheapest(layers) > budget:
        with pytest.raises(InfeasibleTarget) as caught:
            allocate(layers, budget)
        assert caught.value.achievable == cheapest(layers)
        return
    picks = [choices[i] for choices, i in zip(layers, allocate(layers, budget), strict=True)]
    assert sum(choice.cost for choice in picks) <= budget
    best = min(
        sum(choice.harm for choice in combination)
        for combination in itertools.product(*layers)
        if sum(choice.cost for choice in combination) <= budget
    )
    assert sum(choice.harm for choice in picks) <= best + 1e-6


def test_a_large_budget_is_held_exactly_and_used_nearly_whole():
    draw = torch.Generator().manual_seed(0)
    layers = [
        [Choice(int(rank * width), float(2.0 ** (-rank / 8))) for rank in range(1, 65)]
        for width in torch.randint(1000, 999_983, (60,), generator=draw)
    ]
    budget = sum(choices[20].cost for choices in layers)
    spent = sum(layers[i][pick].cost for i, pick in enumerate(allocate(layers, budget)))
    assert 0.999 * budget < spent <= budget


def test_nothing_to_choose_from_is_no_error():
    assert allocate([], 0) == []
