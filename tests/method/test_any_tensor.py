"""Whatever goes in and comes out: number types, memory layouts, single images, nested outputs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basisconv import DecomposeConfig, decompose_
from basisconv.calibrate import fisher
from basisconv.outputs import output_tensors
from tests.method.compressing import X, body, lost, run
from tests.method.shelf import randomize


class Nested(nn.Module):
    """Outputs in a dictionary of lists, as detectors and deeply supervised networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor] | tuple[Tensor, int]]:
        y = F.relu(self.b(F.relu(self.a(x))))
        return {"maps": [self.c(y), y.amax((2, 3))], "size": (y.mean((1, 2, 3)), 3)}


def test_nested_outputs_are_felt():
    network = randomize(Nested())
    assert len(output_tensors(network(X[:2]))) == 3
    found = fisher(network, {"a": network.a}, [X], torch.Generator().manual_seed(0))["a"]
    assert float(found[0].trace()) > 0
    run(network, target_value=0.6)


class Preprocessed(nn.Module):
    """Looks at pixels as whole numbers first: no gradient reaches the image."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = body(nn.Conv2d(16, 16, 3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = (x * 64).round().to(torch.int32).float() / 64
        return self.rest(x)


def test_the_metric_is_known_behind_steps_without_a_gradient():
    network = randomize(Preprocessed())
    layers = {"c": network.rest[2], "s": network.rest[0]}
    found = fisher(network, layers, [X], torch.Generator().manual_seed(0))
    assert all(float(f[0].trace()) > 0 for f in found.values())
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    frozen = fisher(network, layers, [X], torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(found.values(), frozen.values(), strict=True))
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_other_precisions_keep_theirs(dtype, basis):
    network = body(nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3)).to(
        dtype
    )
    original = copy.deepcopy(network)
    run(network, X.to(dtype), basis=basis, target_value=0.6)
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}
    assert torch.isfinite(network(X.to(dtype))).all()
    if basis == "activations":
        assert lost(network, original, X.to(dtype)) < 0.25


def test_half_precision_on_large_values_does_not_overflow():
    network = body(nn.Conv2d(16, 16, 3)).half()
    original = copy.deepcopy(network)
    x = (X * 100 + 200).half()
    run(network, x, target_value=0.6)
    assert lost(network, original, x) < 0.25


def test_channels_last_weights_and_images_give_the_same_network():
    plain = body(nn.Conv2d(16, 16, 3, groups=2), nn.ReLU(), nn.Conv2d(16, 16, 3))
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    ends = [run(plain), run(last, X.to(memory_format=torch.channels_last))]
    assert [layer.rank for layer in ends[0].layers] == [layer.rank for layer in ends[1].layers]
    assert lost(last, plain) < 1e-4


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_images_of_one_pixel_in_batches_of_one(basis):
    network = body(nn.Conv2d(16, 16, 3, padding=1))
    x = torch.randn(64, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    original = copy.deepcopy(network)
    run(network, x, batch=1, basis=basis, target_value=0.7)
    assert lost(network, original, x) < (0.2 if basis == "activations" else 1.5)


class Unbatched(nn.Module):
    """Drops the batch axis, which torch's layers allow."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.head(F.relu(self.b(F.relu(self.a(image)))).mean((1, 2))) for image in x.unbind(0)]
        return torch.stack(rows)


def test_layers_on_single_images():
    network = randomize(Unbatched())
    original = copy.deepcopy(network)
    *_, _ = decompose_(network, X[:1], DecomposeConfig(target_value=0.6), lambda: iter(X[:32].split(1)))
    assert lost(network, original) < 0.5
