"""Layers that run several times, under two names, or only for some images."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from basisconv import (
    BasisConv2d,
    DecomposeConfig,
    Factorized,
    SeparableConv2d,
    count,
    decompose_,
    describe,
    replace_,
)
from basisconv.cost import form_cost, sites
from basisconv.graph import trace
from basisconv.observe import GraphObserver, HookObserver
from tests.method.compressing import X, lost, run
from tests.method.shelf import randomize


class Alias(nn.Module):
    """One layer under two names, reached through a list that modules do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.body = nn.Conv2d(16, 16, 3)
        self.again = self.body
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.again(F.relu(self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize("traced", [False, True])
def test_a_layer_under_two_names_is_replaced_under_both(traced):
    network: nn.Module = randomize(Alias())
    if traced:
        network = fx.symbolic_trace(network)
        for node in network.graph.nodes:
            if node.target == "body":
                node.target = "again"
        network.again = network.body  # the graph calls the second of the two names
        network.recompile()
    original = copy.deepcopy(network)
    config = DecomposeConfig(target_kind="ranks", target_value={"body": 6})
    *_, _ = decompose_(network, X[:1], config, lambda: iter(X.split(32)))
    assert isinstance(network.body, Factorized)
    assert network.again is network.body
    assert 0 < lost(network, original) < 0.6


class Repeated(nn.Module):
    """One convolution run three times, on two sizes, its last answer added to a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.last, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x))
        y = F.relu(self.again(F.relu(self.again(y))))
        small = F.max_pool2d(y, 2)
        z = F.relu(self.last(small) + self.again(small))
        return self.head(z.mean((2, 3)))


class RepeatedUntraceable(Repeated):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if bool(x.sum() > -1e9) else x


@pytest.mark.parametrize("kind", [Repeated, RepeatedUntraceable])
def test_a_layer_that_runs_several_times_is_fitted_on_all_its_inputs(kind):
    network = randomize(kind())
    original = copy.deepcopy(network)
    assert {layer.name: layer.calls for layer in describe(network, X[:1])}["again"] == 3
    end = run(network, target_value=0.6)
    assert next(layer for layer in end.layers if layer.name == "again").replaced
    assert lost(network, original) < 0.35


@pytest.mark.parametrize("memory_bytes", [0, 200_000, 1 << 30])
def test_all_calls_of_a_layer_are_observed_in_order_whatever_the_memory(memory_bytes):
    original = randomize(Repeated())
    compressed = copy.deepcopy(original)
    compressed.stem.weight.data *= 0.9
    graph = trace(original, X[:1])
    assert graph is not None
    walk = GraphObserver(graph, original, compressed, lambda: iter(X.split(32)), 3, memory_bytes)
    plain = HookObserver({"again": 3}, original, compressed, lambda: iter(X.split(32)))
    sizes = {"stem": [12] * 3, "again": [12, 12, 6] * 3, "last": [6] * 3, "head": [16] * 3}
    for path, expected in sizes.items():
        seen, again = list(walk.observe(path)), list(plain.observe(path))
        assert [x.shape[-1] for x, _ in seen] == expected
        for (x, _), (x_plain, _) in zip(seen, again, strict=True):
            torch.testing.assert_close(x, x_plain, rtol=1e-4, atol=1e-5)
        if path == "again":
            compressed.again.weight.data *= 0.8  # as its replacement would


class Frames(nn.Module):
    """Folds eight frames of a clip into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 16, 3, 2), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.stack([x * (1 + 0.1 * i) for i in range(8)], 1)
        y = F.relu(self.b(F.relu(self.a(frames.flatten(0, 1)))))
        return self.head(y.mean((2, 3)).unflatten(0, (-1, 8)).mean(1))


@pytest.mark.parametrize("kind", [Frames, Repeated])
@pytest.mark.parametrize("form", ["basis", "kx1_1xk", "1xk_kx1"])
def test_costs_are_predicted_for_layers_that_run_on_more_than_one_image_each(kind, form):
    network, example = randomize(kind()), X[:2]
    site = sites(network, example)[1]
    predicted = form_cost(site, form, 4, True)
    conv = site.module
    pair = BasisConv2d.from_conv(conv, 4) if form == "basis" else SeparableConv2d.from_conv(conv, 4, form)
    replace_(network, {site.layer.name: pair})
    assert count(network, example).layers[site.layer.name] == predicted


class SharedNorm(nn.Module):
    """Two convolutions behind the first go through one batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.a = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.b = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x))
        y = F.relu(self.norm(self.a(y)))
        return self.head(F.relu(self.norm(self.b(y))).mean((2, 3)))


def test_a_batch_norm_that_serves_two_layers_is_not_changed_for_one():
    network = randomize(SharedNorm())
    before = copy.deepcopy(network.norm.state_dict())
    run(network, target_kind="ranks", target_value={"stem": 3, "a": 16})
    assert all(torch.equal(before[key], value) for key, value in network.norm.state_dict().items())


class EarlyExit(nn.Module):
    """Which layers run depends on the image's values; some images reach no further than the first."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.rare = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        if bool(y.mean() > self.level):
            y = F.relu(self.b(y))
        if bool(x.abs().sum() == 0):
            y = F.relu(self.rare(y))
        return self.head(y.mean((2, 3)))


def test_layers_that_only_some_images_reach():
    network = randomize(EarlyExit(0.0))
    with torch.no_grad():
        means = [float(F.relu(network.a(x)).mean()) for x in X.split(8)]
    network.level = sorted(means)[len(means) // 2]
    example = torch.zeros_like(X[:1])  # black: it alone reaches `rare`, and it does not reach `b`
    found = {layer.name for layer in describe(network, example)}
    assert found == {"a", "rare", "head"}
    *_, end = decompose_(network, example, DecomposeConfig(target_value=0.9), lambda: iter(X.split(8)))
    outcome = {layer.name: layer for layer in end.layers}
    assert outcome["rare"].reason == "not_reached"
    network = randomize(EarlyExit(network.level))
    bright = next(x for x, mean in zip(X.split(8), means, strict=True) if mean > network.level)
    *_, _ = decompose_(network, bright, DecomposeConfig(target_value=0.6), lambda: iter(X.split(8)))
    assert torch.isfinite(network(X)).all()
