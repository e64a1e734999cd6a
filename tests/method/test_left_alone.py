"""Layers whose weights somebody else reads, computes or changes: they stay as they are, with the reason."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.method.compressing import X, body, lost, reasons, run
from tests.method.shelf import randomize


class ReadsWeights(nn.Module):
    """Reads a layer's weight itself, as some code does to learn its type, and uses another's directly."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 16, 3, padding=1) for i in (3, 16, 16))
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x.to(self.a.weight.dtype)))
        y = F.relu(self.b(y)) + F.conv2d(y, self.b.weight, padding=1)
        return self.head(F.relu(self.c(y)).mean((2, 3)))


def test_a_layer_whose_weights_others_read_is_left_alone():
    network = randomize(ReadsWeights())
    assert reasons(network) == {"a": "shared_weights", "b": "shared_weights", "c": None, "head": None}
    original = copy.deepcopy(network)
    run(network, target_value=0.9)
    assert lost(network, original) < 0.5


class Tied(nn.Module):
    """The same numbers in a convolution and a linear layer, through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3)
        self.b = nn.Conv2d(16, 16, 1, bias=False)
        self.c = nn.Linear(16, 16, bias=False)
        self.head = nn.Linear(16, 8)

    def tie(self) -> "Tied":
        self.c.weight = nn.Parameter(self.b.weight.data.view(16, 16))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))))


def test_weights_tied_between_a_convolution_and_a_linear_layer_are_shared():
    network = randomize(Tied()).tie()
    assert reasons(network) == {"a": None, "b": "shared_weights", "c": "shared_weights", "head": None}


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm, nn.utils.spectral_norm])
def test_layers_with_computed_weights_are_left_alone_and_work_on(norm):
    network = body(norm(nn.Conv2d(16, 16, 3)), nn.ReLU(), nn.Conv2d(16, 16, 3))
    network(X[:2])
    assert reasons(network)["2"] == "custom_layer"
    with torch.no_grad():
        expected = network[2](torch.ones(1, 16, 5, 5))
    run(network, target_value=0.7)
    with torch.no_grad():
        torch.testing.assert_close(network[2](torch.ones(1, 16, 5, 5)), expected)


def test_layers_with_hooks_of_their_own_are_left_alone():
    network = body(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    network[2].register_forward_hook(lambda _, __, y: 2 * y)
    network[4].register_forward_pre_hook(lambda _, args: (args[0] + 1,))
    found = reasons(network)
    assert (found["2"], found["4"], found["0"]) == ("custom_layer", "custom_layer", None)


class Subclass(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def test_a_subclass_may_do_anything_and_is_left_alone():
    assert reasons(body(Subclass(16, 16, 3)))["2"] == "custom_layer"


class Transformer(nn.Module):
    """A layer of torch's own that reads its parts' weights past their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 3, 3)
        self.mixer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(y.mean(1))


def test_parts_of_torchs_own_composites_are_left_alone():
    network = randomize(Transformer())
    original = copy.deepcopy(network)
    inside = {name: reason for name, reason in reasons(network).items() if name.startswith("mixer.")}
    assert set(inside.values()) == {"custom_layer"}
    run(network, target_value=0.9)
    assert lost(network, original) < 0.3
