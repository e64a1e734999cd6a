"""The smallest network within an allowed loss of accuracy: the search, the estimate, both on a network."""

import copy
import math
from collections.abc import Callable
from random import Random

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from basisconv import DecomposeConfig, Reason, count
from basisconv.config import Progress
from basisconv.foretell import accuracy_lost
from basisconv.measure import measure
from basisconv.ranks.accuracy import most_tries, smallest_share
from basisconv.smallest import Smallest, Try, smallest
from tests.method.shelf import Residual, images, randomize

Curve = Callable[[float], float]
TOLERANCE = 0.02


def run(loss: Curve, allowed: float, least: float) -> tuple[float | None, dict[float, float]]:
    """What the search returns, and the loss of every share it asked for."""
    search, told = smallest_share(allowed, least), {}
    try:
        share = next(search)
        while True:
            assert share not in told
            told[share] = loss(share)
            share = search.send(told[share])
    except StopIteration as end:
        return end.value, told


shares = st.floats(0.0, 1.0)
allowances = st.one_of(st.just(0.0), st.floats(1e-4, 0.5))
steps = st.lists(st.tuples(shares, st.floats(0, 0.3)), max_size=8)


def falling(knots: list[tuple[float, float]]) -> Curve:
    """A staircase that falls as the share grows."""
    return lambda share: sum(height for place, height in knots if share < place)


@given(steps, allowances, st.floats(0.001, 0.99))
def test_a_falling_loss_is_followed_to_the_smallest_share_within_the_tolerance(knots, allowed, least):
    loss = falling(knots)
    found, _ = run(loss, allowed, least)
    best = max([least, *(place for place, _ in knots if loss(math.nextafter(place, 0)) > allowed)])
    reached = 1.0 if found is None else found
    assert min(best, 1.0) - 1e-9 <= reached <= best + TOLERANCE * 1.001 or (found is None and best > 1 - 0.02)


@given(st.floats(2, 20), st.floats(0.1, 0.95), st.floats(0.001, 0.1))
def test_a_loss_that_grows_as_it_does_for_networks_needs_few_tries(slope, crossing, allowed):
    _, told = run(lambda share: allowed * math.exp(slope * (crossing - share)), allowed, 0.05)
    assert len(told) <= 9


@given(st.randoms(use_true_random=False), allowances, st.floats(0.001, 1.0))
@example(Random(0), 0.0, math.nextafter(1.0, 0.0))  # no number lies between
def test_whatever_the_loss_does_the_smallest_share_that_passed_is_returned_and_no_other(
    random, allowed, least
):
    found, told = run(lambda _: random.uniform(-0.1, 0.6), allowed, least)
    passed = [share for share, loss in told.items() if loss <= allowed]
    assert found == min(passed, default=None)
    assert all(least < share < 1 for share in told)
    assert len(told) <= most_tries(least)


@given(st.sampled_from([math.nan, math.inf, 1.0]), st.floats(0.0, 0.99))
def test_nothing_is_returned_where_every_smaller_network_loses_too_much(loss, least):
    found, told = run(lambda _: loss, 0.01, least)
    assert found is None
    assert told


def test_a_network_whose_layers_cannot_change_is_not_tried():
    assert run(lambda _: 0.0, 0.01, 1.0) == (None, {})


# The estimate


def scores(classes: list[int], confidence: float = 4.0) -> torch.Tensor:
    return confidence * torch.nn.functional.one_hot(torch.tensor(classes), 4).float()


def test_a_network_that_answers_alike_loses_nothing():
    answers = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    for labels in (None, answers.argmax(1), torch.zeros(50).long()):
        assert accuracy_lost(2 * answers, answers, labels) == 0


def test_answers_that_become_wrong_are_counted_with_one_standard_error_of_their_share():
    right = [0, 1, 2, 3] * 25
    wrong = [1, *right[1:]]
    lost = accuracy_lost(scores(wrong), scores(right, 50), torch.tensor(right))
    assert lost == pytest.approx(0.01 + math.sqrt(0.01 * 0.99 / 100))
    assert accuracy_lost(scores(wrong), scores(right)) == pytest.approx(lost)  # the same without labels


def test_how_sure_the_answers_are_does_not_matter():
    right = [0, 1, 2, 3] * 25
    labels = torch.tensor(right)
    sure, unsure = (accuracy_lost(scores([1, *right[1:]]), scores(right, c), labels) for c in (50, 0.01))
    assert sure == unsure


def test_answers_that_become_right_make_up_for_those_that_become_wrong():
    labels = torch.tensor([0, 1] * 50)
    before, after = scores([0, 0] * 50, 50), scores([1, 1] * 50)
    assert accuracy_lost(after, before, labels) == pytest.approx(
        0.1
    )  # 0 and one standard error, 1 / sqrt(100)
    assert accuracy_lost(after, before) == 1.0


# Both on a network

EXAMPLE = torch.zeros(1, 3, 12, 12)
SEEN, HELD = images(), images(n=400, seed=8)


def balanced() -> nn.Module:
    """A network for which every class is somebody's answer."""
    network = randomize(Residual())
    with torch.no_grad():
        network.head.bias -= network(HELD).mean(0)
    return network


def search(network: nn.Module, allowed: float, **config) -> tuple[Smallest, list[Progress | Try]]:
    def judge(module: nn.Module) -> float:
        with torch.no_grad():
            return accuracy_lost(module(HELD), network(HELD))

    wanted = DecomposeConfig(target_value=1.0, **config)
    calibration = lambda: iter(SEEN.split(32))  # noqa: E731
    said = []
    measuring = measure(network, EXAMPLE, wanted, calibration)
    try:
        while True:
            next(measuring)
    except StopIteration as end:
        measured = end.value
    searching = smallest(network, EXAMPLE, wanted, measured, judge, allowed, calibration)
    try:
        while True:
            said.append(next(searching))
    except StopIteration as end:
        return end.value, said


def test_the_network_returned_is_the_smallest_that_was_seen_to_pass():
    network = balanced()
    found, said = search(network, 0.2, forms="basis")
    assert found.found is not None
    assert found.found.loss <= 0.2
    assert found.found == min((t for t in found.tries if t.passed), key=lambda t: t.macs)
    assert any(not t.passed for t in found.tries)
    assert count(found.module, EXAMPLE).macs == found.found.macs == found.decomposition.costs.macs
    assert [one for one in said if isinstance(one, Try)] == list(found.tries)
    with torch.no_grad():
        assert accuracy_lost(found.module(HELD), network(HELD)) == found.found.loss


def test_the_same_search_ends_at_the_same_bits_and_leaves_the_original_as_it_was():
    network = balanced()
    before = copy.deepcopy(network.state_dict())
    one, other = (search(network, 0.2, basis="weights")[0] for _ in range(2))
    assert one.tries == other.tries
    for name, value in one.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_that_may_lose_nothing_comes_back_as_it_was_with_the_reason_at_every_layer():
    network = balanced()
    found, _ = search(network, 0.0, basis="weights", exclude=("stem",))
    assert found.found is None
    assert found.tries
    assert not any(layer.replaced for layer in found.decomposition.layers)
    reasons = {layer.name: layer.reason for layer in found.decomposition.layers}
    assert reasons["stem"] == Reason.EXCLUDED
    assert reasons["block2.conv1"] == Reason.WITHIN_ACCURACY
    for name, value in network.state_dict().items():
        assert torch.equal(found.module.state_dict()[name], value)


def test_progress_through_the_tries_goes_forward_and_names_the_share():
    _, said = search(balanced(), 0.2, basis="weights")
    fractions = [one.fraction for one in said if isinstance(one, Progress)]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    assert said[0].message == "Trying 50.0% of the operations"
