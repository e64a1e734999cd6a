"""Layers refined together between two single values of the network."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import basisconv.front_to_back
from basisconv import DecomposeConfig, decompose_
from basisconv.config import Decomposition
from basisconv.graph import schedule, trace
from basisconv.nn.basis import BasisConv2d, orthonormalise_
from basisconv.observe import GraphObserver
from basisconv.reconstruct import Effort
from basisconv.windows import second_moments, windows
from tests.method.shelf import Residual, images, randomize, seeded

EXAMPLE = torch.zeros(1, 3, 12, 12)
CALIBRATION = images(n=512)


class Plain(nn.Module):
    """Four convolutions in a row, with a pooling in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 16, 3, padding=1)
        self.d = nn.Conv2d(16, 24, 3, padding=1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.b(F.relu(self.a(x)))), 2)
        x = F.relu(self.d(F.relu(self.c(x))))
        return self.head(x.mean((2, 3)))


class Ladder(nn.Module):
    """A skip from the first value to the last: no window but the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 12, 3, padding=1)
        self.c = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))) + x


def batches(n: int = 256):
    return lambda: iter(CALIBRATION[:n].split(32))


def found_in(network: nn.Module, fitted: set[str]):
    graph = trace(network, EXAMPLE)
    assert graph is not None
    order = schedule(graph, network)
    return order, windows(order, network, EXAMPLE, fitted)


def fit(network: nn.Module, count: int = 256, **config) -> nn.Module:
    module = copy.deepcopy(network)
    *_, end = decompose_(module, EXAMPLE, DecomposeConfig(**config), batches(count))
    assert isinstance(end, Decomposition)
    return module


def distance(network: nn.Module, other: nn.Module) -> float:
    x = images(n=128, seed=99)
    with torch.no_grad():
        return float((network(x) - other(x)).square().mean())


def test_a_window_is_a_residual_block_to_the_activation_behind_its_addition():
    inside = {f"block{i}.{name}" for i in (1, 2) for name in ("conv1", "conv2", "down.0")}
    _, found = found_in(randomize(Residual()), inside)
    assert [set(window.layers) for window in found] == [
        {name for name in inside if name.startswith(block)} for block in ("block1", "block2")
    ]
    assert all(str(window.out.target).endswith("relu") for window in found)


def test_in_a_plain_network_a_window_holds_two_layers_and_ends_before_the_pooling():
    _, found = found_in(randomize(Plain()), {"a", "b", "c", "d"})
    assert [window.layers for window in found] == [("a", "b"), ("c", "d")]
    assert [window.out.target for window in found] == [F.relu, F.relu]


def test_where_skips_cross_everything_the_window_is_the_whole_network():
    _, found = found_in(randomize(Ladder()), {"a", "b", "c"})
    assert [window.layers for window in found] == [("a", "b", "c")]


def test_without_layers_to_fit_there_is_no_window():
    assert found_in(randomize(Plain()), set())[1] == []


def test_windows_never_overlap_and_take_the_layers_in_their_order():
    order, found = found_in(randomize(Residual()), {"stem", "block1.conv1", "block2.conv2", "head"})
    for before, after in itertools.pairwise(found):
        assert before.stop <= after.start
        assert before.out is after.source
    inside = [[str(node.target) for node in order[w.start : w.stop]] for w in found]
    assert all(set(w.layers) <= set(targets) for w, targets in zip(found, inside, strict=True))


def test_what_an_error_behind_a_window_costs_is_the_gradients_second_moment():
    network = randomize(Plain())
    order, found = found_in(network, {"c", "d", "head"})
    x = CALIBRATION[:8]
    moments = second_moments(order, network, found[-1:], [x], seeded(4))
    signs = torch.randint(0, 2, (8, 10), generator=seeded(4)) * 2.0 - 1  # the last value is the logits
    with torch.no_grad():
        z = network(x)
    size = (z - z.mean(1, keepdim=True)).norm() / 8**0.5
    g = ((signs - signs.mean(1, keepdim=True)) / size).double()
    torch.testing.assert_close(moments[found[-1].out], g.T @ g / 8, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("network", [Residual(), Plain()], ids=["residual", "plain"])
@pytest.mark.parametrize("forms", ["basis", "auto"])
def test_refining_brings_unseen_images_closer_than_each_layers_own_fit(network, forms, monkeypatch):
    network = randomize(network)
    refined = fit(network, 512, target_value=0.4, forms=forms)
    monkeypatch.setattr(Effort, "affordable", lambda *_: None)
    alone = fit(network, 512, target_value=0.4, forms=forms)
    assert distance(refined, network) < distance(alone, network)


def test_layers_that_the_request_excludes_stay_to_the_bit():
    network = randomize(Residual())
    excluded = ("block1.conv2", "head")
    refined = fit(network, target_value=0.6, exclude=excluded)
    for path in excluded:
        assert torch.equal(refined.get_submodule(path).weight, network.get_submodule(path).weight)


def test_batch_norms_keep_their_scale_and_offset():
    network = randomize(Residual())
    refined = fit(network, target_value=0.5)
    for path in ("block1.bn1", "block2.bn2"):
        assert torch.equal(refined.get_submodule(path).weight, network.get_submodule(path).weight)
        assert torch.equal(refined.get_submodule(path).bias, network.get_submodule(path).bias)


def test_the_same_request_is_refined_to_the_same_bits():
    network = randomize(Plain())
    once, again = (fit(network, target_value=0.5).state_dict() for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("memory_bytes", [0, 600_000])
def test_little_memory_costs_accuracy_at_most_and_never_the_result(memory_bytes, monkeypatch):
    network = randomize(Residual())

    class Forgetful(GraphObserver):
        def __init__(self, *args) -> None:
            super().__init__(*args, memory_bytes=memory_bytes)

    monkeypatch.setattr(basisconv.front_to_back, "GraphObserver", Forgetful)
    found = fit(network, target_value=0.5)
    with torch.no_grad():
        assert torch.isfinite(found(CALIBRATION[:8])).all()
        assert distance(found, network) < distance(network, randomize(Residual(), seed=1))


def test_gradients_stay_switched_as_they_were():
    network = randomize(Plain())
    network.d.weight.requires_grad_(False)
    refined = fit(network, target_value=0.7, include=("b", "c"))
    assert not refined.d.weight.requires_grad
    assert refined.a.weight.requires_grad


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_made_orthonormal_again_answer_the_same(groups):
    conv = nn.Conv2d(8, 12, 3, groups=groups)
    pair = BasisConv2d.from_conv(conv, 4)
    pair.basis.weight.data += 0.3 * torch.randn(pair.basis.weight.shape, generator=seeded(1))
    before = pair.to_dense().weight.clone()
    orthonormalise_(pair)
    torch.testing.assert_close(pair.to_dense().weight, before, rtol=1e-4, atol=1e-5)
    rows = pair.basis.weight.double().reshape(groups, 4, -1)
    eye = torch.eye(4, dtype=torch.float64).expand(groups, -1, -1)
    torch.testing.assert_close(rows @ rows.mT, eye, rtol=0, atol=1e-5)


def test_effort_follows_what_the_network_costs():
    small = Effort.affordable(10_000_000, torch.device("cpu"))
    middle = Effort.affordable(150_000_000, torch.device("cpu"))
    assert small is not None
    assert middle is not None
    assert small.steps > middle.steps
    assert Effort.affordable(5_000_000_000, torch.device("cpu")) is None
