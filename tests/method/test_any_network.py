"""Networks that people really write: whatever a layer is called with, by whom, and how often."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations

from basisconv import (
    BasisConv2d,
    DecomposeConfig,
    Decomposition,
    Factorized,
    InfeasibleTarget,
    SeparableConv2d,
    count,
    decompose_,
    describe,
    observe,
    replace_,
)
from basisconv.calibrate import fisher
from basisconv.cost import form_cost, sites
from basisconv.graph import trace
from basisconv.observe import GraphObserver, HookObserver
from basisconv.outputs import output_tensors
from tests.method.shelf import images, randomize

X = images()


def run(network: nn.Module, x: Tensor = X, batch: int = 32, **config) -> Decomposition:
    """Compress in place, and hold the outcome to what the network has become."""
    before = count(network, x[:1])
    *_, end = decompose_(network, x[:1], DecomposeConfig(**config), lambda: iter(x.split(batch)))
    assert isinstance(end, Decomposition)
    pairs = {path for path, module in network.named_modules() if isinstance(module, Factorized)}
    assert {layer.name for layer in end.layers if layer.replaced} == pairs
    assert all((layer.reason is None) == layer.replaced for layer in end.layers)
    assert end.costs == count(network, x[:1])
    if config.get("target_kind", "macs") == "macs":
        assert end.costs.macs <= config.get("target_value", 0.5) * before.macs
    return end


def lost(network: nn.Module, original: nn.Module, x: Tensor = X) -> float:
    """Share of the output's variance that the compressed network misses."""
    with torch.no_grad():
        y, y_hat = original(x).double(), network(x).double()
    return float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum())


def reasons(network: nn.Module, x: Tensor = X) -> dict[str, str | None]:
    return {layer.name: layer.reason for layer in describe(network, x[:1])}


def body(*layers: nn.Module, inputs: int = 3, outputs: int = 10) -> nn.Sequential:
    """Given layers (16 channels to 16) between a stem and a classifier."""
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, outputs)]
    network = nn.Sequential(nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU(), *layers, nn.ReLU(), *head)
    return randomize(network)


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
