"""The whole decomposition on small networks, each with one difficulty."""

import copy
from collections.abc import Generator, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from basisconv import (
    DecomposeConfig,
    Decomposition,
    InfeasibleTarget,
    InvalidRequest,
    MalformedWeights,
    count,
    decompose_,
    describe,
)
from basisconv.front_to_back import fit_
from basisconv.graph import _in_place, _is_add, meeting, schedule, trace
from basisconv.measure import measure
from basisconv.observe import GraphObserver, HookObserver
from basisconv.options import Measured
from basisconv.plan import plan
from tests.method.shelf import Mixed, Residual, Untraceable, images, randomize

EXAMPLE = torch.zeros(1, 3, 12, 12)
X = images()


def batches(x: Tensor = X) -> Iterator[Tensor]:
    return iter(x.split(32))


def run(network: nn.Module, x: Tensor = X, **config) -> Decomposition:
    example = x[:1]
    *_, last = decompose_(network, example, DecomposeConfig(**config), lambda: batches(x))
    assert isinstance(last, Decomposition)
    return last


def relative_error(network: nn.Module, original: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        y, y_hat = original(x), network(x)
    return float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum())


@cache
def smallest_share(kind: str, forms: str, multiple: int) -> dict[str, float]:
    found = {}
    for basis in ("weights", "activations"):
        with pytest.raises(InfeasibleTarget) as caught:
            run(
                randomize(Residual()), X[:32], target_kind=kind, target_value=1e-3, forms=forms, basis=basis,
                rank_multiple=multiple,
            )  # fmt: skip
        assert caught.value.achievable is not None
        found[basis] = caught.value.achievable
    return found


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["macs", "params"]),
    st.floats(0.2, 1.0),
    st.sampled_from(["basis", "auto"]),
    st.sampled_from(["weights", "activations"]),
    st.sampled_from([1, 4]),
)
def test_a_budget_is_never_exceeded(kind, share, forms, basis, multiple):
    network = randomize(Residual())
    before = count(network, EXAMPLE)
    least = smallest_share(kind, forms, multiple)
    config = {
        "target_kind": kind,
        "target_value": share,
        "forms": forms,
        "basis": basis,
        "rank_multiple": multiple,
    }
    assume(abs(share - least[basis]) > 1e-4)  # to which it is rounded
    if share < least[basis]:
        with pytest.raises(InfeasibleTarget) as caught:
            run(network, X[:32], **config)
        assert (caught.value.code, caught.value.achievable) == ("target_infeasible", least[basis])
        return
    end = run(network, X[:32], **config)
    after = count(network, EXAMPLE)
    assert getattr(after, kind) <= share * getattr(before, kind) + 1e-6
    assert after == end.costs
    ranks = [layer.rank for layer in end.layers if layer.rank is not None]
    assert all(rank % multiple == 0 for rank in ranks)


def test_what_an_infeasible_target_says_is_achievable_is():
    network = randomize(Residual())
    with pytest.raises(InfeasibleTarget) as caught:
        run(network, target_kind="macs", target_value=0.01)
    before = copy.deepcopy(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True))
    run(network, target_kind="macs", target_value=caught.value.achievable)
    assert 0.01 < caught.value.achievable < 1


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_with_the_whole_budget_nothing_changes(basis):
    network = randomize(Residual())
    original = copy.deepcopy(network)
    end = run(network, basis=basis, target_kind="macs", target_value=1.0)
    assert not any(layer.replaced for layer in end.layers)
    assert relative_error(network, original, X) == 0


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_explicit_ranks_are_taken_and_other_layers_stay_to_the_bit(basis):
    network = randomize(Residual())
    original = copy.deepcopy(network)
    end = run(network, basis=basis, target_kind="ranks", target_value={"block1.conv2": 5, "block2.conv1": 21})
    outcome = {layer.name: layer for layer in end.layers}
    assert (outcome["block1.conv2"].rank, outcome["block1.conv2"].form) == (5, "basis")
    assert (outcome["block2.conv1"].replaced, outcome["block2.conv1"].reason) == (False, "not_cheaper")
    assert outcome["stem"].reason == "not_requested"
    assert torch.equal(network.stem.weight, original.stem.weight)
    assert torch.equal(network.head.weight, original.head.weight)


def test_more_budget_means_less_error():
    errors = []
    for share in (0.3, 0.5, 0.7, 0.9):
        network = randomize(Residual())
        original = copy.deepcopy(network)
        run(network, target_kind="macs", target_value=share)
        errors.append(relative_error(network, original, images(seed=8)))
    assert errors == sorted(errors, reverse=True)


def test_measured_responses_beat_weights_at_the_same_budget():
    errors = {}
    for basis in ("weights", "activations"):
        network = randomize(Residual())
        original = copy.deepcopy(network)
        run(network, basis=basis, target_kind="macs", target_value=0.5, forms="basis")
        errors[basis] = relative_error(network, original, images(seed=8))
    assert errors["activations"] < 0.5 * errors["weights"]


def test_the_same_request_gives_the_same_network_to_the_bit():
    first, second = randomize(Residual()), randomize(Residual())
    for network in (first, second):
        run(network, target_kind="macs", target_value=0.5, seed=3)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_every_layer_has_an_outcome_in_order_and_every_kept_one_a_reason():
    network = randomize(Mixed())
    x = images(channels=4)
    names = [layer.name for layer in describe(network, x[:1])]
    end = run(network, x, target_kind="macs", target_value=0.6, exclude=("dilated",))
    assert [layer.name for layer in end.layers] == names
    outcome = {layer.name: layer for layer in end.layers}
    assert outcome["dilated"].reason == "excluded"
    assert outcome["depthwise"].reason == "depthwise"
    for layer in end.layers:
        assert (
            layer.replaced == (layer.reason is None) == (layer.form != "dense") == (layer.error is not None)
        )


def test_grouped_dilated_reflected_and_pointwise_layers_are_fitted_well():
    network = randomize(Mixed())
    original, x = copy.deepcopy(network), images(channels=4)
    ranks = {"grouped": 5, "dilated": 9, "strided": 12, "pointwise": 10}
    end = run(network, x, target_kind="ranks", target_value=ranks)
    assert {layer.name: layer.rank for layer in end.layers if layer.replaced} == ranks
    with torch.no_grad():
        equal = (network(x).argmax(1) == original(x).argmax(1)).float().mean()
    assert equal > 0.8


def test_excluded_layers_are_not_touched_at_all():
    network = randomize(Residual())
    original = copy.deepcopy(network)
    allowed = ("block1.conv1", "block2.conv2")
    end = run(network, target_kind="macs", target_value=0.8, include=allowed)
    assert {layer.name for layer in end.layers if layer.replaced} <= set(allowed)
    for path in ("stem", "block2.conv1", "head"):
        assert torch.equal(network.get_submodule(path).weight, original.get_submodule(path).weight)


def test_the_energy_rule_is_about_convolutions():
    network = randomize(Residual())
    end = run(network, basis="weights", target_kind="energy", target_value=0.6)
    reasons = {layer.name: layer.reason for layer in end.layers}
    assert reasons["head"] == "linear_kept"
    lost = [layer.error for layer in end.layers if layer.replaced]
    assert lost
    assert all(0 <= share <= 0.4 for share in lost)


def test_a_network_that_cannot_be_traced_and_scores_no_classes_is_compressed_too():
    network = randomize(Untraceable())
    original = copy.deepcopy(network)
    assert trace(network, EXAMPLE) is None
    run(network, target_kind="macs", target_value=0.6)
    with torch.no_grad():
        for y, y_hat in zip(original(X), network(X), strict=True):
            assert (y - y_hat).square().sum() < 0.5 * (y - y.mean(0)).square().sum()


def test_a_traced_network_keeps_its_paths_and_runs_after_surgery():
    plain = randomize(Residual())
    traced = fx.symbolic_trace(copy.deepcopy(plain))
    for network in (plain, traced):
        run(network, target_kind="macs", target_value=0.5)
    torch.testing.assert_close(plain(X), traced(X), rtol=1e-4, atol=1e-4)


def test_modes_are_put_back():
    network = randomize(Residual()).train()
    run(network, target_kind="macs", target_value=0.6)
    assert network.training
    assert network.block1.conv1.training


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_zero_scaled_and_dead_layers_do_no_harm(basis):
    network = randomize(Residual())
    network.block1.conv1.weight.data.zero_()
    network.block1.conv2.weight.data *= 1e-12
    network.block2.conv1.weight.data *= 1e6
    network.block2.bn1.running_var *= 1e12
    network.stem.weight.data[3:] = 0
    network.stem.bias.data[3:] = -1  # dead after the ReLU
    run(network, basis=basis, target_kind="macs", target_value=0.5)
    assert torch.isfinite(network(X)).all()


def test_nan_weights_and_images_are_named_before_anything_changes():
    network = randomize(Residual())
    with pytest.raises(MalformedWeights) as caught:
        run(network, X * float("nan"), target_kind="macs", target_value=0.5)
    assert caught.value.layer is not None
    assert type(network.stem) is nn.Conv2d
    network.block1.conv2.weight.data[0] = float("inf")
    with pytest.raises(MalformedWeights, match=r"block1\.conv2"):
        run(network, target_kind="macs", target_value=0.5)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"target_kind": "ranks", "target_value": {"nowhere": 3}}, "nowhere"),
        ({"target_kind": "ranks", "target_value": {"stem": 13}}, r"\[1, 12\], got 13"),
        ({"target_kind": "macs", "target_value": 1.5}, r"\(0, 1\], got 1.5"),
        ({"target_kind": "macs", "target_value": 0.5, "exclude": ("gone",)}, "gone"),
        ({"target_kind": "ranks", "target_value": 3}, "rank per layer"),
    ],
)
def test_requests_that_do_not_fit_are_refused_with_what_would(config, says):
    with pytest.raises(InvalidRequest, match=says):
        run(randomize(Residual()), **config)


def test_activations_without_images_are_refused():
    with pytest.raises(InvalidRequest, match="needs images"):
        list(decompose_(randomize(Residual()), EXAMPLE, DecomposeConfig(), None))
    with pytest.raises(InvalidRequest, match="no images"):
        list(decompose_(randomize(Residual()), EXAMPLE, DecomposeConfig(), lambda: iter(())))


def test_where_branches_meet_the_heavier_layer_is_fitted_last():
    network = randomize(Residual())
    graph = trace(network, EXAMPLE)
    assert graph is not None
    order = [str(node.target) for node in schedule(graph, network) if node.op == "call_module"]
    assert order.index("block2.down.0") < order.index("block2.conv2")
    by_path = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    found = meeting(network, by_path["block2.conv2"])
    assert found is not None
    assert found.norms == ("block2.bn2",)
    assert meeting(network, by_path["block2.conv1"]) is None  # a ReLU stands between


def test_shortcuts_are_seen_in_every_kind_of_graph():
    network = randomize(Residual())
    exported = torch.export.export(network, (EXAMPLE,)).module()
    assert isinstance(exported, fx.GraphModule)
    adds = [n for n in exported.graph.nodes if n.op == "call_function" and _is_add(n)]
    assert len(adds) == 2
    assert not any(_in_place(n, exported) for n in exported.graph.nodes if "conv2d" in n.name)
    assert any(_in_place(n, exported) for n in exported.graph.nodes if "relu_" in str(n.target))


def test_what_a_shortcut_lost_is_added_to_the_target():
    original = randomize(Residual())
    compressed = copy.deepcopy(original)
    with torch.no_grad():
        compressed.block2.down[1].bias += 0.25
    graph = trace(original, EXAMPLE)
    assert graph is not None
    observer = GraphObserver(graph, original, compressed, batches, 3)
    plain = HookObserver({}, original, compressed, batches)
    pairs = zip(observer.observe("block2.conv2"), plain.observe("block2.conv2"), strict=True)
    norm = original.block2.bn2
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    for (_, target), (_, response) in pairs:
        lost = ((target - response) * scale.view(-1, 1, 1)).detach()
        torch.testing.assert_close(lost, torch.full_like(lost, -0.25), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("memory_bytes", [0, 200_000, 1 << 30])
def test_what_is_observed_does_not_depend_on_how_much_memory_there_is(memory_bytes):
    original = randomize(Residual())
    compressed = copy.deepcopy(original)
    compressed.stem.weight.data *= 0.9
    graph = trace(original, EXAMPLE)
    assert graph is not None
    walk = GraphObserver(graph, original, compressed, batches, 3, memory_bytes)
    plain = HookObserver({}, original, compressed, batches)
    for path in ("stem", "block1.conv1", "block2.conv1", "head"):
        for (x, t), (x_plain, t_plain) in zip(walk.observe(path), plain.observe(path), strict=True):
            torch.testing.assert_close(x, x_plain, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(t, t_plain, rtol=1e-4, atol=1e-5)


def test_progress_goes_forward_through_both_stages():
    reports = list(decompose_(randomize(Residual()), EXAMPLE, DecomposeConfig(), batches))[:-1]
    assert [r.stage for r in reports] == sorted(r.stage for r in reports)
    for stage in ("calibrate", "decompose"):
        fractions = [r.fraction for r in reports if r.stage == stage]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1


def result(steps: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def measured_once(network: nn.Module, config: DecomposeConfig) -> Measured:
    return result(measure(network, EXAMPLE, config, batches))


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_one_measurement_serves_every_budget_as_well_as_its_own(basis):
    original = randomize(Residual())
    measured = measured_once(original, DecomposeConfig(basis=basis))
    for kind, share in (("macs", 0.6), ("macs", 0.4), ("params", 0.5), ("macs", 0.6)):
        config = DecomposeConfig(basis=basis, target_kind=kind, target_value=share)
        tried, alone = copy.deepcopy(original), copy.deepcopy(original)
        end = result(fit_(tried, EXAMPLE, measured, plan(measured, config), batches))
        *_, expected = decompose_(alone, EXAMPLE, config, batches)
        assert end == expected
        for name, value in alone.state_dict().items():
            assert torch.equal(tried.state_dict()[name], value), (share, name)


def test_measuring_and_fitting_a_copy_leave_the_original_as_it_was():
    original = randomize(Residual()).train()
    before = copy.deepcopy(original.state_dict())
    config = DecomposeConfig(target_value=0.4)
    measured = measured_once(original, config)
    result(fit_(copy.deepcopy(original), EXAMPLE, measured, plan(measured, config), batches))
    assert all(torch.equal(original.state_dict()[name], value) for name, value in before.items())
    assert all(child.training for child in original.modules())


def test_a_plan_by_responses_is_not_fitted_without_images():
    config = DecomposeConfig(target_value=0.4)
    measured = measured_once(randomize(Residual()), config)
    with pytest.raises(InvalidRequest, match="needs images"):
        result(fit_(randomize(Residual()), EXAMPLE, measured, plan(measured, config)))
