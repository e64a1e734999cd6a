"""Networks that others changed come back whole, without a pickle; budgets are kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from basisconv import count
from benchmarks import onnx_file
from benchmarks.data import Draw
from benchmarks.methods.ours import OURS
from benchmarks.methods.protocol import Task
from benchmarks.methods.weights import WEIGHTS
from benchmarks.peers import structure
from benchmarks.peers.search import largest
from benchmarks.recalibrate import divergence, recalibrated
from benchmarks.speed.contenders import total
from tests.support.networks import CifarResNet


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    ).eval()


def task(cuts: tuple[float, ...]) -> Task:
    images = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    draw = Draw(images, torch.zeros(32, dtype=torch.int64), images[:8])
    return Task("small", small_network(), torch.zeros(1, 3, 8, 8), cuts, draw, 0, 1)


def test_layers_split_in_three_and_layers_made_narrower_survive_the_exchange(tmp_path: Path):
    changed = small_network()
    changed[0] = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    changed[1] = nn.BatchNorm2d(4)
    changed[3] = nn.Sequential(
        nn.Conv2d(4, 2, 1, bias=False),
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(3, 12, 1),
    )
    described = json.loads(json.dumps(structure.describe(small_network(), changed)))
    structure.save(changed, tmp_path / "changed.safetensors")
    found = structure.rebuild_(small_network(seed=1), described)
    structure.load_(found, tmp_path / "changed.safetensors")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(found(x), changed.eval()(x))


def test_an_unchanged_network_has_nothing_to_exchange():
    assert structure.describe(small_network(), small_network(seed=1)) == {}


@pytest.mark.parametrize("method", [WEIGHTS, OURS], ids=lambda method: method.name)
def test_every_cut_is_a_network_within_its_budget_and_the_original_stays(method):
    asked = task((0.3, 0.5))
    before = count(asked.original, asked.example)
    weights = {name: value.clone() for name, value in asked.original.state_dict().items()}
    for compressed in method.compress(asked):
        macs = count(compressed.module, asked.example).macs
        assert macs <= (1 - compressed.cut) * before.macs
    assert all(torch.equal(weights[name], value) for name, value in asked.original.state_dict().items())


def test_the_search_finds_the_edge_of_a_budget_from_below():
    found = largest(lambda share: share <= 0.37)
    assert 0.37 - 1e-6 < found <= 0.37
    assert largest(lambda _: True) == 1.0


def test_a_budget_that_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="cannot be kept"):
        largest(lambda _: False)


def test_norms_measured_again_hold_the_statistics_of_the_images():
    network = small_network()
    images = 3 + 2 * torch.randn(64, 3, 8, 8)
    found = recalibrated(network, images)
    responses = network[0](images)
    torch.testing.assert_close(found[1].running_mean, responses.mean((0, 2, 3)))
    assert torch.equal(network[1].running_mean, torch.zeros(8))
    assert not found.training


def test_a_network_does_not_diverge_from_itself_and_does_from_another():
    images = torch.randn(16, 3, 8, 8)
    assert divergence(small_network(), small_network(), images) == pytest.approx(0, abs=1e-9)
    assert divergence(small_network(), small_network(seed=1), images) > 1e-4


def test_a_subset_is_scaled_by_the_factor_that_is_printed():
    stages = [{"cpu_seconds": 2.0}, {"cpu_seconds": 3.0}]
    assert total({"stages": stages, "scaled_by": 4.0}, "cpu_seconds") == 20.0
    assert total({"stages": stages, "scaled_by": None, "each_scaled_by": [1, 10]}, "cpu_seconds") == 32.0


def test_operations_counted_in_the_file_are_those_that_the_library_counts(tmp_path: Path):
    network = CifarResNet(8, 10, "A").eval()  # its shortcuts pad channels: shapes are known only at run time
    asked = replace(task((0.5,)), original=network, example=torch.zeros(1, 3, 32, 32))
    (compressed,) = WEIGHTS.compress(asked)
    for module in (network, compressed.module):
        file = onnx_file.export(module, tmp_path / "network.onnx")
        assert onnx_file.macs(file) == count(module, asked.example).macs
