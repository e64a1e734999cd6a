"""Time as a budget: what is timed, what lies between, and what is chosen."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from basisconv import DecomposeConfig, Decomposition, InfeasibleTarget, InvalidRequest, Reason, decompose_
from basisconv.cost import sites
from basisconv.latency import BlockTimer, Cut, LatencyTable, Timer, TorchTimer, Whole, time_network
from basisconv.latency.curve import Curve, timed_ranks
from basisconv.latency.onnx_timer import OnnxTimer, layers_by_torch
from basisconv.latency.structure import with_pairs
from basisconv.latency.torch_timer import _marked
from basisconv.nn import Factorized
from tests.formats import nets
from tests.method.shelf import Mixed, Residual, Untraceable, images, randomize, seeded

X = images(n=32)


class Wide(nn.Module):
    """Layers of several blocks of channels, the first and the last narrower than one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 32, 3, padding=1)
        self.b = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.c = nn.Conv2d(48, 48, 3, padding=1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(torch.relu(self.stem(x))))))
        return self.head(torch.relu(self.c(x)).mean((2, 3)))


def wide() -> nn.Module:
    return randomize(Wide())


def timer_of(network: nn.Module, **given: float) -> BlockTimer:
    return BlockTimer(copy.deepcopy(network), X[:1], **({"call_ns": 200.0} | given))  # type: ignore[arg-type]


def run(network: nn.Module, timer: Timer | None, target: float, **config: Any) -> Decomposition:
    wish = DecomposeConfig(target_kind="latency", target_value=target, **config)
    *_, last = decompose_(network, X[:1], wish, lambda: iter(X.split(16)), timer)
    assert isinstance(last, Decomposition)
    return last


def cuts(done: Decomposition) -> dict[str, Cut]:
    return {o.name: Cut(o.form, o.rank) for o in done.layers if o.replaced}  # type: ignore[arg-type]


def table_of(timer: Timer, network: nn.Module, **config: Any) -> LatencyTable:
    steps = time_network(
        network, X[:1], DecomposeConfig(target_kind="latency", target_value=1.0, **config), timer
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.table


# What lies between timed ranks


@given(st.dictionaries(st.integers(1, 300), st.floats(0, 1e9), min_size=1), st.sampled_from([None, 8, 16]))
def test_times_are_never_below_zero_nor_above_what_was_timed(times, block):
    curve = Curve(times, block)
    for rank, ns in times.items():
        assert 0 <= curve.ns(rank) <= ns
    for rank in range(1, max(times) + 1):
        assert 0 <= curve.ns(rank) <= max(times.values())


@given(st.lists(st.integers(1, 20), min_size=1, unique=True), st.sampled_from([8, 16]), st.data())
def test_times_that_rise_with_the_rank_are_met_at_timed_ranks_and_rise_between_them(blocks, block, data):
    ranks = [4, *(16 * b for b in sorted(blocks))]
    rising = sorted(data.draw(st.lists(st.floats(0, 1e9), min_size=len(ranks), max_size=len(ranks))))
    times = dict(zip(ranks, rising, strict=True))
    curve = Curve(times, block)
    for rank, ns in times.items():
        assert curve.ns(rank) == pytest.approx(ns)
    between = [curve.ns(rank) for rank in range(1, ranks[-1] + 1)]
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(between))


def test_ranks_that_fill_no_block_have_their_own_times_even_slower_ones():
    curve = Curve({4: 40.0, 14: 60.0, 16: 50.0, 32: 90.0}, 16)
    assert [curve.ns(rank) for rank in (4, 9, 14, 16)] == [40.0, 50.0, 60.0, 50.0]


def test_all_ranks_of_one_block_cost_the_same():
    curve = Curve({4: 40.0, 16: 100.0, 64: 400.0}, 16)
    assert {curve.ns(rank) for rank in range(17, 33)} == {200.0}


def test_a_runtime_that_does_not_tell_its_blocks_is_charged_the_next_timed_rank():
    curve = Curve({4: 40.0, 16: 100.0, 64: 400.0}, None)
    assert [curve.ns(rank) for rank in (5, 16, 17, 64)] == [100.0, 100.0, 400.0, 400.0]


def test_ranks_beyond_the_timed_ones_are_refused_not_guessed():
    with pytest.raises(ValueError, match="65 is beyond the largest that was timed, 64"):
        Curve({4: 40.0, 64: 400.0}, 16).ns(65)


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_few_ranks_are_timed_and_they_reach_every_option(most, more):
    ranks = timed_ranks(most, most + more)
    assert len(ranks) <= 8
    assert most <= ranks[-1] <= most + more
    assert ranks[0] <= 4


# Choosing


@settings(max_examples=4, deadline=None)
@given(st.floats(0.55, 0.95), st.sampled_from(["weights", "activations"]), st.sampled_from(["basis", "auto"]))
def test_the_time_of_the_whole_stays_within_the_target(target, basis, forms):
    network = wide()
    timer = timer_of(network, between_ns=300.0)
    done = run(network, timer, target, basis=basis, forms=forms)
    assert timer.whole(cuts(done)).ratio <= target
    assert any(layer.replaced for layer in done.layers)


def test_effort_that_only_the_whole_shows_is_met_by_choosing_again():
    network = wide()
    blind, seeing = timer_of(network), timer_of(network, between_ns=3000.0)
    told = cuts(run(copy.deepcopy(network), seeing, 0.8, basis="weights"))
    untold = cuts(run(copy.deepcopy(network), blind, 0.8, basis="weights"))
    assert seeing.whole(told).ratio <= 0.8 < seeing.whole(untold).ratio


@pytest.mark.parametrize("call_ns", [0.0, 500.0, 3000.0])
def test_no_pair_is_chosen_that_is_not_faster_than_its_layer(call_ns):
    network = wide()
    timer = timer_of(network, call_ns=call_ns)
    before = timer.layers({}).layers
    done = run(network, timer, 0.9, basis="weights")
    after = timer.layers(cuts(done)).layers
    assert all(after[path] < before[path] for path in cuts(done))


def test_ranks_fill_the_runtimes_blocks_because_less_would_save_nothing():
    network = wide()
    done = run(network, timer_of(network), 0.5, basis="weights")
    chosen = [cut.rank for path, cut in cuts(done).items() if path in ("b", "c")]
    assert chosen
    assert all(rank % 16 == 0 for rank in chosen)


def test_where_nothing_is_faster_layers_stay_with_that_reason():
    network = wide()
    kept = {
        o.name: o.reason for o in run(network, timer_of(network, call_ns=1e7), 1.0, basis="weights").layers
    }
    assert set(kept.values()) == {Reason.NOT_FASTER.value}


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_an_impossible_target_says_what_is_possible_before_anything_changes(basis):
    network = wide()
    before = copy.deepcopy(network.state_dict())
    timer = timer_of(network)
    with pytest.raises(InfeasibleTarget) as caught:
        run(network, timer, 0.05, basis=basis)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert caught.value.achievable is not None
    done = run(network, timer, caught.value.achievable, basis=basis)
    assert timer.whole(cuts(done)).ratio <= caught.value.achievable


def test_a_wished_multiple_is_kept():
    network = wide()
    done = run(network, timer_of(network), 0.7, basis="weights", rank_multiple=12)
    assert all(cut.rank % 12 == 0 for cut in cuts(done).values())


def test_excluded_layers_stay():
    network = wide()
    done = run(network, timer_of(network), 0.8, basis="weights", exclude=("c",))
    assert "c" not in cuts(done)


def test_a_latency_target_without_a_timer_is_refused():
    with pytest.raises(InvalidRequest, match="needs a timer"):
        run(wide(), None, 0.5)


def test_more_time_means_less_harm():
    errors = []
    for target in (0.9, 0.7, 0.5):
        network = wide()
        run(network, timer_of(network), target, basis="weights")
        with torch.no_grad():
            errors.append(float((network(X) - wide()(X)).square().mean()))
    assert errors == sorted(errors)


@pytest.mark.parametrize("network", [Residual, Mixed, Untraceable])
def test_every_open_layer_of_every_network_gets_its_times(network):
    module = randomize(network())
    channels = 4 if network is Mixed else 3
    example = torch.randn(1, channels, 12, 12, generator=seeded(0))
    config = DecomposeConfig(basis="weights", target_kind="latency", target_value=1.0)
    *_, done = decompose_(
        module, example, config, None, BlockTimer(copy.deepcopy(module), example, call_ns=0)
    )
    assert isinstance(done, Decomposition)
    assert all(layer.replaced or layer.reason for layer in done.layers)


# Real runtimes


def onnx_timer() -> tuple[OnnxTimer, nn.Module]:
    network = nets.read(nets.small_onnx(), "onnx")
    return OnnxTimer(network), network.module


def torch_timer() -> tuple[TorchTimer, nn.Module]:
    module = nets.small()
    return TorchTimer(module, nets.images(1)), module


def torch_and_onnx_timer() -> tuple[Timer, nn.Module]:
    network = nets.read(nets.small_onnx(), "onnx")
    return layers_by_torch(OnnxTimer(network), network, 1, "cpu"), network.module


REAL = pytest.mark.parametrize("make", [onnx_timer, torch_timer, torch_and_onnx_timer])


@REAL
def test_a_runtime_shows_every_layer_and_every_pair(make: Callable[[], tuple[Timer, nn.Module]]):
    timer, module = make()
    found = [site for site in sites(module, nets.images(1)) if site.layer.kind in ("conv2d", "linear")]
    paths = {site.layer.name for site in found}
    pairs = {s.layer.name: Cut("basis", 2) for s in found if s.layer.compressible}
    for variant in ({}, pairs):
        times = timer.layers(variant)
        assert set(times.layers) == paths
        assert all(ns >= 0 for ns in times.layers.values())
        assert times.total > 0


class Repeated(nn.Module):
    """One layer that runs many times, and one that runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.many = nn.Conv2d(3, 3, 3, padding=1)
        self.once = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(30):
            x = torch.tanh(self.many(x))
        return self.once(x)


def test_all_calls_of_a_layer_count():
    network, ticks = Repeated().eval(), itertools.count()
    with _marked(network, lambda: next(ticks)) as marks:
        network(X[:1])
    assert {path: len(calls) for path, calls in marks.items()} == {"many": 30, "once": 1}


def test_pairs_in_two_branches_are_told_apart():
    network = nets.read(nets.onnx_of(randomize(Residual())), "onnx")
    open_paths = [s.layer.name for s in sites(network.module, nets.images(1)) if s.layer.compressible]
    times = OnnxTimer(network).layers({path: Cut("basis", 3) for path in open_paths})
    assert set(open_paths) <= set(times.layers)


@REAL
def test_timing_changes_nothing(make: Callable[[], tuple[Timer, nn.Module]]):
    timer, module = make()
    before = copy.deepcopy(module.state_dict())
    cut = next(s.layer.name for s in sites(module, nets.images(1)) if s.layer.compressible)
    whole = timer.whole({cut: Cut("basis", 1)})
    assert isinstance(whole, Whole)
    assert min(whole.before, whole.after) > 0
    assert not any(isinstance(child, Factorized) for child in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_layers_timed_by_torch_and_wholes_by_onnx_runtime_make_one_plan():
    network = nets.read(nets.onnx_of(wide()), "onnx")
    timer = layers_by_torch(OnnxTimer(network), network, 1, "cpu")
    example = network.example()
    wish = DecomposeConfig(target_kind="latency", target_value=1.0, basis="weights")
    *_, done = decompose_(copy.deepcopy(network.module), example, wish, None, timer)
    assert isinstance(done, Decomposition)
    assert all(layer.replaced or layer.reason for layer in done.layers)
    assert not torch.backends.cudnn.benchmark


def test_a_file_with_a_fixed_batch_is_timed_at_that():
    network = nets.read(nets.small_onnx(3), "onnx")
    assert OnnxTimer(network, batch=1).layers({}).total > 0


def test_a_network_with_pairs_shares_all_other_weights_and_answers_in_size_like_it():
    network = wide()
    made = with_pairs(network, {"b": Cut("basis", 16), "c": Cut("kx1_1xk", 16)})
    assert made.get_parameter("a.weight") is network.get_parameter("a.weight")
    for path, width in (("b", 32), ("c", 48)):
        x = torch.randn(8, width, 9, 9, generator=seeded(1))
        before = network.get_submodule(path)(x).detach().std()
        after = made.get_submodule(path)(x).detach().std()
        assert 0.2 < float(after / before) < 5
