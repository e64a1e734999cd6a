"""Networks trained from scratch in compressed form: structure, budgets, first weights, learning."""

import copy

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from basisconv import (
    BasisConv2d,
    Decomposition,
    Factorized,
    InfeasibleTarget,
    InvalidRequest,
    MethodError,
    count,
)
from basisconv.finetune import TrainingData
from basisconv.scratch import ScratchConfig, ScratchTraining, TrainConfig, randomize_, unit_variance_
from basisconv.scratch.initialise import fresh_, learned_layers
from tests.method.shelf import Mixed, Residual, Untraceable, images, randomize, seeded

EXAMPLE = torch.zeros(1, 3, 12, 12)
X = images(n=64)


def made(network: nn.Module | None = None, **config) -> tuple[nn.Module, Decomposition]:
    network = network or randomize(Residual())
    example = torch.zeros(1, 4 if isinstance(network, Mixed) else 3, 12, 12)
    return network, randomize_(network, example, ScratchConfig(**config), config.pop("images", None))


def learnable_data(n: int = 240) -> TrainingData:
    """Three classes of noisy stripes: easy for a network that learns, impossible by chance."""
    labels = torch.arange(n) % 3
    rows = torch.arange(12.0)
    stripes = torch.stack([torch.sin(rows * f) for f in (0.6, 1.5, 3.0)])
    noise = torch.randn(n, 3, 12, 12, generator=seeded(0))
    return TrainingData(stripes[labels][:, None, :, None].expand(n, 3, 12, 12) + 0.5 * noise, labels)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Structure


def test_every_spatial_convolution_gets_fixed_filters_and_the_rest_is_told_why_not():
    network, end = made(rank_fraction=0.5)
    outcome = {layer.name: layer for layer in end.layers}
    replaced = [name for name, layer in outcome.items() if layer.replaced]
    assert replaced == ["stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]
    assert (outcome["block1.down.0"].reason, outcome["head"].reason) == ("pointwise_kept", "linear_kept")
    assert [outcome[name].rank for name in replaced] == [6, 8, 8, 12, 12]
    assert network(X).shape == (64, 10)
    assert end.costs == count(network, EXAMPLE)


def test_an_awkward_network_keeps_what_cannot_have_a_basis_to_share():
    _, end = made(randomize(Mixed()), rank_fraction=1.0)
    outcome = {layer.name: layer for layer in end.layers}
    assert outcome["grouped"].replaced
    assert outcome["depthwise"].reason == "depthwise"
    assert outcome["pointwise"].reason == "pointwise_kept"


def test_an_expansion_gives_filters_per_output_channel_even_beyond_full_rank():
    network, end = made(expansion=3.0)
    ranks = {layer.name: layer.rank for layer in end.layers if layer.replaced}
    assert ranks["stem"] == 36  # of 27 inputs: a whole basis and nine filters of a second
    assert ranks["block2.conv1"] == 72
    first = network.get_submodule("stem").first.weight.flatten(1)
    torch.testing.assert_close(first[:27] @ first[:27].T, torch.eye(27), atol=1e-5, rtol=0)
    torch.testing.assert_close(first[27:] @ first[27:].T, torch.eye(9), atol=1e-5, rtol=0)


def test_given_ranks_are_taken_and_other_layers_are_learned_whole():
    _, end = made(ranks={"block1.conv1": 5})
    outcome = {layer.name: layer for layer in end.layers}
    assert (outcome["block1.conv1"].rank, outcome["stem"].reason) == (5, "not_requested")


def test_excluded_layers_are_learned_whole():
    _, end = made(rank_fraction=0.5, exclude=("stem",))
    assert next(layer for layer in end.layers if layer.name == "stem").reason == "excluded"


# Budgets

UNITS = ("macs", "params", "learnable_params")


def quantity(costs, unit: str, before) -> float:
    total = before.params if unit == "learnable_params" else getattr(before, unit)
    return getattr(costs, unit) / total


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(UNITS), st.floats(0.02, 1.0), min_size=1),
    st.sampled_from([Residual, Mixed]),
    st.sampled_from([1, 4]),
)
def test_budgets_are_never_exceeded(budgets, kind, multiple):
    network = randomize(kind())
    example = torch.zeros(1, 4 if kind is Mixed else 3, 12, 12)
    before = count(network, example)
    try:
        end = randomize_(network, example, ScratchConfig(budgets, rank_multiple=multiple))
    except InfeasibleTarget:
        reject()
    assert end.costs == count(network, example)
    for unit, share in budgets.items():
        assert quantity(end.costs, unit, before) <= share + 1e-9


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", [Residual, Mixed])
def test_what_an_infeasible_budget_says_is_achievable_is(unit, kind):
    network = randomize(kind())
    example = torch.zeros(1, 4 if kind is Mixed else 3, 12, 12)
    before, original = count(network, example), state(network)
    with pytest.raises(InfeasibleTarget) as refused:
        randomize_(network, example, ScratchConfig({unit: 1e-3}))
    assert same(original, state(network))
    end = randomize_(network, example, ScratchConfig({unit: refused.value.achievable}))
    assert quantity(end.costs, unit, before) <= refused.value.achievable < 1


def test_more_budget_means_more_filters_and_a_budget_is_nearly_spent():
    totals = []
    for share in (0.2, 0.4, 0.6, 0.8):
        network = randomize(Residual())
        before = count(network, EXAMPLE)
        end = randomize_(network, EXAMPLE, ScratchConfig({"macs": share}))
        totals.append(end.costs.macs)
        assert end.costs.macs > (share - 0.08) * before.macs
    assert totals == sorted(totals)


def test_the_classifier_and_shortcuts_are_split_only_where_a_budget_needs_it():
    generous = {layer.name: layer.replaced for layer in made(budgets={"params": 0.5})[1].layers}
    assert not generous["head"]
    assert not generous["block2.down.0"]
    tight = {layer.name: layer.replaced for layer in made(budgets={"params": 0.1})[1].layers}
    assert tight["block2.down.0"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rank_fraction": 0.5, "expansion": 1.0},
        {"rank_fraction": 1.5},
        {"expansion": 17.0},
        {"budgets": {"macs": 0.0}},
        {"ranks": {"nowhere": 3}},
        {"ranks": {"stem": 13}},
        {"rank_fraction": 0.5, "exclude": ("nowhere",)},
        {"rank_fraction": 0.5, "include": ("head",)},
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(config):
    network = randomize(Residual())
    before = state(network)
    with pytest.raises(InvalidRequest):
        randomize_(network, EXAMPLE, ScratchConfig(**config))
    assert same(before, state(network))


# First weights


def test_the_uploaded_weights_are_forgotten_and_the_seed_decides_the_new_ones():
    a, _ = made(randomize(Residual(), 1), rank_fraction=0.5, seed=4)
    b, _ = made(randomize(Residual(), 2), rank_fraction=0.5, seed=4)
    c, _ = made(randomize(Residual(), 1), rank_fraction=0.5, seed=5)
    assert same(state(a), state(b))
    assert not same(state(a), state(c))
    assert torch.equal(a.block1.bn1.weight, torch.ones(16))
    assert torch.equal(a.block1.bn1.running_mean, torch.zeros(16))


def test_a_layers_filters_do_not_depend_on_what_else_is_replaced():
    a, _ = made(rank_fraction=0.5)
    b, _ = made(ranks={"block2.conv2": 12})
    assert torch.equal(a.block2.conv2.first.weight, b.block2.conv2.first.weight)


class Deep(nn.Sequential):
    """Thirty layers without a batch norm."""

    def __init__(self) -> None:
        layers = [
            part
            for i in range(30)
            for part in (nn.Conv2d(3 if i == 0 else 12, 12, 3, padding=1, padding_mode="circular"), nn.ReLU())
        ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


def test_he_weights_behind_fixed_filters_keep_the_size_of_activations_on_average():
    ratios = []
    for seed in range(30):
        network = nn.Sequential(*list(Deep())[:10])
        randomize_(network, EXAMPLE, ScratchConfig(expansion=3.0, seed=seed))
        x = torch.randn(32, 3, 12, 12, generator=seeded(seed))
        with torch.no_grad():
            ratios.append(float(network(x).square().mean() / x.square().mean()))
    assert 0.4 < sum(ratios) / len(ratios) < 2.5  # five layers; a gain off by 1.5 would give 7.6


def test_with_images_every_learned_layer_starts_at_variance_one():
    network = Deep()
    randomize_(network, EXAMPLE, ScratchConfig(rank_fraction=0.5), X)
    seen = {}

    def note(layer: nn.Module, _: object, y: Tensor) -> None:
        seen[layer] = float(y.std())

    handles = [layer.register_forward_hook(note) for layer in learned_layers(network)]
    with torch.no_grad():
        network(X)
    assert len(handles) == len(seen) == 31
    assert all(value == pytest.approx(1, abs=1e-3) for value in seen.values())


def test_scaling_leaves_no_hook_behind_and_modes_as_they_were():
    network = Deep().train()
    unit_variance_(fresh_(network, 0), X)
    assert network.training
    assert not any(child._forward_hooks for child in network.modules())


# Learning


def trained(seed: int = 0, stop: int | None = None, **config) -> tuple[nn.Module, ScratchTraining]:
    network = randomize(Residual())
    randomize_(network, EXAMPLE, ScratchConfig({"macs": 0.5}, seed=seed), X)
    options = {"epochs": 3, "batch_size": 24, "augment": "none", "seed": seed}
    run = ScratchTraining(network, learnable_data(), TrainConfig(**{**options, **config}))
    for step in run:
        if step.step == stop:
            break
    return network, run


def test_it_learns_what_chance_cannot_answer():
    network, _ = trained(epochs=5)
    fresh = learnable_data(480)
    x, y = fresh.images[240:], fresh.labels[240:]
    with torch.no_grad():
        assert float((network(x).argmax(1) == y).float().mean()) > 0.8
    assert not network.training


def test_only_what_learns_gets_gradients_and_fixed_filters_stay_to_the_bit():
    network, run = trained(stop=1)
    fixed = {f"{path}.{name}" for path, pair in pairs(network) for name in ("basis.weight",)}
    assert fixed
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name in fixed)
    assert set(run.learning) == {name for name, _ in network.named_parameters()} - fixed
    learnable = count(network, EXAMPLE).learnable_params
    assert sum(p.numel() for p in run.learning.values()) == learnable
    list(run)
    assert all(pair.is_as_drawn for _, pair in pairs(network))


def pairs(network: nn.Module) -> list[tuple[str, Factorized]]:
    return [(path, child) for path, child in network.named_modules() if isinstance(child, Factorized)]


def test_batch_norms_learn_their_statistics():
    network, _ = trained(epochs=1)
    assert not torch.equal(network.block1.bn1.running_mean, torch.zeros(16))


def test_a_seed_decides_the_run_to_the_bit():
    torch.manual_seed(1)
    a, _ = trained(seed=3)
    torch.manual_seed(2)
    b, _ = trained(seed=3)
    c, _ = trained(seed=4)
    assert same(state(a), state(b))
    assert not same(state(a), state(c))


@pytest.mark.parametrize("stop", [1, 10, 17])
def test_a_resumed_run_ends_at_the_same_bits(stop):
    whole, _ = trained()
    _, interrupted = trained(stop=stop)
    network = randomize(Residual())
    randomize_(network, EXAMPLE, ScratchConfig({"macs": 0.5}), X)
    config = TrainConfig(epochs=3, batch_size=24, augment="none")
    rest = ScratchTraining(network, learnable_data(), config)
    rest.resume(interrupted.state_dict())
    assert next(rest).step == stop + 1
    list(rest)
    assert same(state(whole), state(network))


def test_what_cannot_be_learned_from_is_refused_at_once():
    network, _ = made(rank_fraction=0.5)
    data = learnable_data()
    for bad in (TrainingData(data.images), TrainingData(data.images[:0], data.labels[:0])):
        with pytest.raises(InvalidRequest):
            ScratchTraining(network, bad, TrainConfig())
    with pytest.raises(InvalidRequest, match="at least 1 epoch"):
        ScratchTraining(network, data, TrainConfig(epochs=0))
    with pytest.raises(InvalidRequest, match="batches of one"):
        ScratchTraining(network, data, TrainConfig(batch_size=1))
    no_classes, _ = made(randomize(Untraceable()), rank_fraction=0.5)
    with pytest.raises(InvalidRequest, match="classifier"):
        list(ScratchTraining(no_classes, data, TrainConfig()))


def test_a_loss_that_is_no_number_ends_the_run_with_a_way_out():
    network, _ = made(rank_fraction=0.5)
    run = ScratchTraining(network, learnable_data(), TrainConfig(learning_rate=1e9, batch_size=24))
    with pytest.raises(MethodError, match="loss became") as caught:
        list(run)
    assert caught.value.hint is not None


def test_a_basis_that_was_trained_is_no_longer_told_by_its_seed():
    network, _ = made(rank_fraction=0.5)
    pair = network.stem
    assert isinstance(pair, BasisConv2d)
    moved = copy.deepcopy(pair)
    assert moved.is_as_drawn
    moved.first.weight.data[0, 0, 0, 0] += 1e-6
    assert not moved.is_as_drawn
