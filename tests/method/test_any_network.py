"""Networks that people really write: every geometry, however layers are called, and whatever can be saved."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basisconv import InfeasibleTarget, observe
from tests.method.compressing import X, body, lost, reasons, run
from tests.method.shelf import randomize


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(16, 16, 5, padding=2, padding_mode="circular", bias=False),
        nn.Conv2d(16, 16, 4, padding="same"),
        nn.Conv2d(16, 16, (2, 4), padding="same", dilation=(3, 1), padding_mode="replicate"),
        nn.Sequential(nn.Conv2d(16, 3, 1), nn.Conv2d(3, 16, 15, padding=7)),
        nn.Sequential(nn.Conv2d(16, 2, 1), nn.Conv2d(2, 16, 13, padding=1)),
        nn.Conv2d(16, 16, 2, stride=3, padding=1),
        nn.Conv2d(16, 16, 3, padding=(0, 2), stride=(1, 2), dilation=(2, 1), groups=2),
        nn.Conv2d(16, 16, (1, 7), padding=(0, 3), groups=4, bias=False),
        nn.Sequential(nn.Conv2d(16, 8, 3, groups=4), nn.Conv2d(8, 32, 3, groups=2), nn.Conv2d(32, 16, 1)),
        nn.Sequential(nn.ZeroPad2d((0, 3, 1, 2)), nn.Conv2d(16, 16, 3, stride=2)),
        nn.Sequential(
            nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 1, stride=2, bias=False), nn.ReLU(inplace=True)
        ),
    ],
    ids=str,
)
def test_every_geometry_is_compressed_within_its_budget(conv):
    network = body(conv)
    original = copy.deepcopy(network)
    run(network, target_value=0.6)
    assert lost(network, original) < 0.5


class Kwargs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(
            self.b(
                input=F.relu(self.a(input=x)),
            )
        )
        return self.head(input=y.mean((2, 3)))


class KwargsUntraceable(Kwargs):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if bool(x.sum() > -1e9) else x


@pytest.mark.parametrize("kind", [Kwargs, KwargsUntraceable])
def test_layers_called_by_keyword(kind):
    network = randomize(kind())
    original = copy.deepcopy(network)
    run(network, target_value=0.6)
    assert lost(network, original) < 0.5


class Defaults(Kwargs):
    """Arguments beside the image, none of which anybody gives."""

    def forward(
        self, x: Tensor, scale: float = 2.0, mask: Tensor | None = None, flip: bool = False
    ) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x * scale))))
        if mask is not None:
            y = y * mask
        if flip:
            y = y.flip(3)
        return self.head(y.mean((2, 3)))


def test_further_arguments_keep_their_defaults():
    network = randomize(Defaults())
    original = copy.deepcopy(network)
    run(network, target_value=0.6)
    assert lost(network, original) < 0.5


def test_linear_layers_alone():
    network = randomize(nn.Sequential(nn.Flatten(), nn.Linear(432, 64), nn.ReLU(), nn.Linear(64, 10)))
    original = copy.deepcopy(network)
    end = run(network, target_value=0.5)
    assert [layer.form for layer in end.layers] == ["basis", "dense"]
    assert lost(network, original) < 0.1


def test_only_the_first_layer_can_become_cheaper():
    network = randomize(
        nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 1, 1))
    )
    original = copy.deepcopy(network)
    end = run(network, target_value=0.6)
    assert [layer.replaced for layer in end.layers] == [True, False, False]
    with torch.no_grad():
        y, y_hat = original(X), network(X)
    assert (y - y_hat).square().sum() < 0.2 * (y - y.mean()).square().sum()


def test_nothing_can_become_cheaper():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.ReLU(), nn.Conv2d(3, 1, 1))
    with pytest.raises(InfeasibleTarget) as caught:
        run(network.eval(), target_value=0.9)
    assert caught.value.achievable == 1.0
    run(network.eval(), target_value=1.0)


def test_dead_nodes_in_a_graph_are_counted_and_do_no_harm():
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rest = body(nn.Conv2d(16, 16, 3))
            self.dead = nn.Conv2d(3, 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x)
            return self.rest(x)

    network = randomize(Dead())
    original = copy.deepcopy(network)
    assert "dead" in reasons(network)
    run(network, target_value=0.6)
    assert lost(network, original) < 0.5


def test_chunks_changed_in_place_are_seen_right_with_little_memory(monkeypatch):
    class Chunks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (
                nn.Conv2d(3, 16, 3, padding=1),
                nn.Conv2d(8, 16, 3, padding=1),
                nn.Conv2d(16, 16, 3),
            )
            self.head = nn.Linear(32, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            left, right = y.chunk(2, 1)
            right += 1
            z = self.c(F.relu(self.b(left) + y))
            return self.head(torch.cat([z.mean((2, 3)), y.mean((2, 3))], 1))

    outcomes = []
    for memory in (0, 1 << 30):
        monkeypatch.setattr(observe.GraphObserver.__init__, "__defaults__", (memory,))
        network = randomize(Chunks())
        run(network, target_value=0.6)
        with torch.no_grad():
            outcomes.append(network(X))
    torch.testing.assert_close(*outcomes)
