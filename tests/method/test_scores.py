"""How well a network answers, and its structure in JSON."""

import copy
import json

import pytest
import torch
from torch import nn

from basisconv import BasisConv2d, BasisLinear, InvalidRequest, SeparableConv2d, replace_
from basisconv.evaluate import MOST_DB, Tally, evaluate
from basisconv.recipe import apply_, describe_structure
from tests.method.shelf import Residual, Untraceable, images, randomize, seeded


def test_accuracy_and_agreement_are_shares_over_all_batches():
    tally = Tally()
    scores = torch.eye(3)
    tally.add([scores], torch.tensor([0, 1, 0]), [scores.roll(1, 0)])
    tally.add([scores[:1]], torch.tensor([0]), [scores[:1] * 5])
    found = tally.scores()
    assert (found.examples, found.accuracy, found.agreement) == (4, 0.75, 0.25)


def test_agreement_in_decibels_is_the_outputs_size_over_its_errors():
    network = randomize(Untraceable())
    noisy = copy.deepcopy(network)
    noisy.c.weight.data *= 1.1
    noisy.c.bias.data *= 1.1
    found = evaluate(noisy, [(images(), None)], network)
    assert found.accuracy is found.agreement is None
    assert found.agreement_db is not None
    assert found.agreement_db[0] == MOST_DB
    assert found.agreement_db[1] == pytest.approx(20.0, abs=0.01)


def test_without_labels_or_reference_nothing_is_claimed():
    found = evaluate(randomize(Residual()), [(images(), None)])
    assert (found.examples, found.accuracy, found.agreement, found.agreement_db) == (96, None, None, None)


def test_outputs_that_are_not_numbers_are_as_far_away_as_can_be():
    tally = Tally()
    tally.add([torch.full((2, 3), float("nan"))], None, [torch.ones(2, 3)])
    assert tally.scores().agreement_db == (-MOST_DB,)


def test_evaluation_leaves_batch_norms_and_modes_alone():
    network = randomize(Residual()).train()
    before = network.block1.bn1.running_mean.clone()
    evaluate(network, [(images(), None)])
    assert torch.equal(before, network.block1.bn1.running_mean)
    assert network.training


def compressed() -> tuple[nn.Module, nn.Module]:
    original = randomize(Residual())
    network = copy.deepcopy(original)
    pairs = {
        "stem": SeparableConv2d.from_conv(network.stem, 5, "1xk_kx1"),
        "block1.conv1": BasisConv2d.from_conv(network.block1.conv1, 3),
        "block2.conv2": SeparableConv2d.from_conv(network.block2.conv2, 7, "kx1_1xk"),
        "head": BasisLinear.from_linear(network.head, 4),
    }
    return original, replace_(network, pairs)


def test_a_recipe_rebuilds_the_structure_so_that_the_weights_load():
    original, network = compressed()
    recipe = json.loads(json.dumps(describe_structure(network)))
    rebuilt = apply_(original, recipe)
    rebuilt.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 12, 12, generator=seeded(0))
    assert torch.equal(rebuilt(x), network(x))
    assert describe_structure(rebuilt) == recipe


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"path": "gone"}, "gone"),
        ({"form": "magic"}, "magic"),
        ({"rank": 4}, "recipe says"),
        ({"path": "block1.bn1"}, "no layer here"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_anything_changes(change, says):
    original, network = compressed()
    recipe = describe_structure(network)
    recipe["layers"][1].update(change)
    with pytest.raises(InvalidRequest, match=says):
        apply_(original, recipe)
    assert type(original.stem) is nn.Conv2d


def test_a_recipe_of_another_version_is_refused():
    with pytest.raises(InvalidRequest, match="version"):
        apply_(Residual(), {"version": 99, "layers": []})
