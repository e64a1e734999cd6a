"""What the mathematics promises, each against a computation of its own kind."""

import copy
import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from basisconv import (
    BasisConv2d,
    BasisLinear,
    DecomposeConfig,
    Decomposition,
    InfeasibleTarget,
    SeparableConv2d,
    count,
    decompose_,
)
from basisconv.basis.activations import METRIC_FLOOR, Metric, output_metric
from basisconv.calibrate import Covariances, Moments, fisher
from basisconv.cost import Site, sites
from basisconv.fit import fit_pair
from basisconv.nn import FORMS
from basisconv.options import Statistics, options, pairs, separation
from basisconv.patches import positions_of, response_rows, seen_rows
from tests.method.shelf import convolutions, images, input_for, randomize, seeded

few = settings(max_examples=25, deadline=None)


def site_of(layer: nn.Module, x: Tensor) -> Site:
    return sites(nn.Sequential(layer), x[:1])[0]


def observed(layer: nn.Conv2d | nn.Linear, x: Tensor, target: Tensor | None = None) -> Covariances:
    """Every place of every image."""
    with torch.no_grad():
        y = layer(x) if target is None else target
    everywhere = torch.arange(positions_of(layer, y))
    moments = Moments()
    moments.add(seen_rows(layer, x, everywhere), response_rows(layer, y, everywhere))
    return moments.covariances()


def metrics_of(layer: nn.Conv2d, seed: int = 0) -> tuple[Tensor, tuple[Metric, ...]]:
    """Second moments of made-up gradients, per group, and their metrics."""
    outputs = layer.out_channels // layer.groups
    grad = torch.randn(layer.groups, 3 * outputs, outputs, generator=seeded(seed), dtype=torch.float64)
    moments = grad.mT @ grad
    return moments, tuple(output_metric(m) for m in moments)


def energy(moments_GOO: Tensor, error_NCHW: Tensor) -> float:
    """Mean over images and places of e' (F + floor) e, from the outputs themselves."""
    groups, outputs = moments_GOO.shape[:2]
    rows = error_NCHW.double().unflatten(1, (groups, outputs)).movedim((1, 2), (0, -1)).flatten(1, -2)
    floor = METRIC_FLOOR * torch.linalg.eigvalsh(moments_GOO)[:, -1]
    metric = moments_GOO + floor[:, None, None] * torch.eye(outputs, dtype=torch.float64)
    return float(torch.einsum("gmo,gop,gmp->", rows, metric, rows)) / rows.shape[1]


@few
@given(convolutions())
def test_a_pair_fitted_at_full_rank_answers_as_the_layer_on_what_it_saw(conv):
    x = input_for(conv, 3)
    site = site_of(conv, x)
    fitted = fit_pair(site, observed(conv, x), metrics_of(conv)[1], "basis", site.layer.max_rank)
    torch.testing.assert_close(fitted.layer(x), conv(x), rtol=1e-6, atol=1e-6)
    assert fitted.error < 1e-9
    dense = fitted.layer.to_dense()
    torch.testing.assert_close(dense(x), fitted.layer(x), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("form", ["kx1_1xk", "1xk_kx1"])
@pytest.mark.parametrize("geometry", [{}, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}])
def test_a_separable_pair_fitted_at_full_rank_answers_as_the_layer_and_folds_back(form, geometry):
    conv = randomize(nn.Conv2d(3, 4, (2, 3), **geometry)).double()
    x = input_for(conv, 6)
    site = site_of(conv, x)
    fitted = fit_pair(site, observed(conv, x), metrics_of(conv)[1], form, max(pairs_at_any_cost(site, form)))
    with torch.no_grad():
        lost = (fitted.layer(x) - conv(x)).square().sum() / conv(x).var() / conv(x).numel()
        torch.testing.assert_close(fitted.layer.to_dense()(x), fitted.layer(x), rtol=1e-8, atol=1e-9)
    assert float(lost) < 1e-6


def pairs_at_any_cost(site: Site, form: str) -> range:
    a, b = site.layer.kernel_size if form == "kx1_1xk" else site.layer.kernel_size[::-1]
    return range(1, min(site.layer.in_channels * a, site.layer.out_channels * b) + 1)


@few
@given(convolutions(), st.data())
def test_predicted_harm_is_the_error_of_the_real_outputs_in_the_metric(conv, data):
    x = input_for(conv, 3)
    site, seen = site_of(conv, x), observed(conv, x)
    rank = data.draw(st.integers(1, site.layer.max_rank))
    moments, metrics = metrics_of(conv)
    harms = {o.rank: o.harm for o in options(site, Statistics(seen.gram, metrics), "basis", 1, True)}
    pair = fit_pair(site, seen, metrics, "basis", rank).layer
    with torch.no_grad():
        found = energy(moments, conv(x) - pair(x))
        scale = energy(moments, conv(x) - conv(x).mean((0, 2, 3), keepdim=True))
    if rank in harms:
        assert found == pytest.approx(harms[rank], rel=1e-5, abs=1e-9 * scale)


@pytest.mark.parametrize("form", ["kx1_1xk", "1xk_kx1"])
@pytest.mark.parametrize("rank", [1, 4])
def test_predicted_separable_harm_is_an_upper_bound_of_the_real_outputs_error(form, rank):
    conv = randomize(nn.Conv2d(6, 8, 3, padding=1)).double()
    x = images(6, 9, 20).double()
    site, seen = site_of(conv, x), observed(conv, x)
    moments, metrics = metrics_of(conv)
    found = options(site, Statistics(seen.gram, metrics), "auto", 1, True)
    harm = next(o.harm for o in found if (o.form, o.rank) == (form, rank))
    pair = fit_pair(site, seen, metrics, form, rank).layer
    with torch.no_grad():
        error = energy(moments, conv(x) - pair(x))
    assert 0.4 * harm < error < harm * (1 + 1e-4)
    axis = 0 if form == "kx1_1xk" else 1
    problem = separation(site, conv.weight, seen.gram[0], metrics[0])
    problem = problem if axis == 0 else problem.turned()
    taps = pair.first.weight.detach().flatten(1)
    mixing = pair.second.weight.detach().squeeze(2 + axis)
    scaled = torch.tensordot(metrics[0].root, mixing, dims=1)
    assert float(problem.error(taps, scaled)) == pytest.approx(error, rel=1e-3)


def rows_of(layer: nn.Conv2d, x: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centred patches and wanted responses by torch's own unfold."""
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    X = patches.movedim(1, 2).flatten(0, 1).numpy()
    T = target.flatten(2).movedim(1, 2).flatten(0, 1).numpy()
    return X - X.mean(0), T - T.mean(0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_reduced_rank_regression_is_as_good_as_a_direct_solver_on_the_data_itself(rank, seed):
    """Least squares by LAPACK on all rows, then Eckart-Young on the fitted rows in the metric."""
    conv = randomize(nn.Conv2d(3, 6, 3, padding=1), seed).double()
    x, noise = images(3, 10, 12, seed).double(), torch.randn(12, 6, 10, 10, generator=seeded(seed)).double()
    with torch.no_grad():
        seen_by = x + 0.2 * images(3, 10, 12, seed + 9).double()  # what a compressed network would give
        target = conv(x) + 0.1 * noise
    moments, metrics = metrics_of(conv, seed)
    site = site_of(conv, x)
    pair = fit_pair(site, observed(conv, seen_by, target), metrics, "basis", rank).layer
    with torch.no_grad():
        ours = energy(moments, target - pair(seen_by))
    X, T = rows_of(conv, seen_by, target)
    floor = METRIC_FLOOR * np.linalg.eigvalsh(moments[0].numpy())[-1]
    root = scipy.linalg.sqrtm(moments[0].numpy() + floor * np.eye(6)).real
    fitted = X @ np.linalg.lstsq(X, T @ root, rcond=None)[0]
    u, s, v = scipy.linalg.svd(fitted, full_matrices=False)
    best = float(((T @ root - (u[:, :rank] * s[:rank]) @ v[:rank]) ** 2).sum()) / len(X)
    assert best * (1 - 1e-6) <= ours <= best * (1 + 2e-3)  # the ridge holds it a little nearer to the weights


@pytest.mark.parametrize("form", FORMS)
def test_more_rank_never_means_more_harm_in_any_form(form):
    conv = randomize(nn.Conv2d(5, 8, 3, padding=1, stride=2)).double()
    x = images(5, 12, 20).double()
    site, seen = site_of(conv, x), observed(conv, x)
    found = options(site, Statistics(seen.gram, metrics_of(conv)[1]), "auto", 1, True)
    harms = [o.harm for o in found if o.form == form]
    assert len(harms) >= 3
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(harms))


@few
@given(convolutions(), st.floats(0.05, 1))
def test_a_single_layer_meets_any_budget_or_names_the_least(conv, share):
    network, x = nn.Sequential(copy.deepcopy(conv)), input_for(conv, 1)
    before = count(network, x).macs
    site = site_of(conv, x)
    costs = [c.macs for form in pairs(site, "auto", 1, conv.bias is not None).values() for c in form.values()]
    least = min([before, *costs]) if site.layer.compressible else before
    config = DecomposeConfig("weights", "macs", share)
    if least <= int(before * share + 1e-6):
        list(decompose_(network, x, config))
        assert count(network, x).macs <= before * share + 1e-6
    else:
        with pytest.raises(InfeasibleTarget) as caught:
            list(decompose_(network, x, config))
        assert caught.value.achievable == pytest.approx(least / before, abs=1.01e-4)


@pytest.mark.parametrize(
    "pair",
    [
        BasisConv2d.from_conv(nn.Conv2d(4, 6, 3, 2, 1, 1, 2).double(), 2),
        SeparableConv2d.from_conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect").double(), 2),
        SeparableConv2d.from_conv(nn.Conv2d(2, 3, (2, 3), (1, 2)).double(), 2, "1xk_kx1"),
        BasisLinear.from_linear(nn.Linear(5, 4).double(), 2),
    ],
    ids=lambda pair: f"{type(pair).__name__}-{pair.form}",
)
def test_gradients_of_a_pair_are_those_of_finite_differences(pair):
    shape = (2, 5) if isinstance(pair, BasisLinear) else (2, pair.first.in_channels, 5, 6)
    x = torch.randn(shape, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    names, values = zip(*pair.named_parameters(), strict=True)

    def answer(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(pair, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(answer, (x, *values))


def test_the_metric_of_a_layer_is_that_of_finite_differences_of_the_output():
    # of one scalar output the random sign squares to one, and F is the sum of its gradients' products
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Softplus(), nn.Flatten())
    network = randomize(nn.Sequential(layers, nn.Linear(8, 1))).double()
    x = images(2, 6, 3)[:, :, :5, :5].double()
    found = fisher(network, {"c": layers[0]}, [x], seeded(0))["c"][0]
    with torch.no_grad():
        size = float(network(x).norm()) / len(x) ** 0.5
        y, step = layers[0](x), 1e-5
        rest = nn.Sequential(*layers[1:], network[1])
        grads = torch.zeros_like(y)
        for place in itertools.product(*(range(n) for n in y.shape[1:])):
            moved = torch.zeros_like(y)
            moved[(slice(None), *place)] = step
            grads[(slice(None), *place)] = ((rest(y + moved) - rest(y - moved)) / (2 * step)).squeeze(1)
    expected = torch.einsum("nohw,nphw->op", grads, grads) / len(x) / size**2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_the_gradient_that_refines_separable_factors_is_that_of_finite_differences():
    conv = randomize(nn.Conv2d(2, 3, 3)).double()
    x = images(2, 8, 4).double()
    site = site_of(conv, x)
    problem = separation(site, conv.weight, observed(conv, x).gram[0], metrics_of(conv)[1][0])
    taps = torch.randn(2, 6, generator=seeded(1), dtype=torch.float64)

    def least_error(moved: Tensor) -> float:
        return float(problem.error(moved, problem._best(moved)[0]))

    error, slope = problem._slope(taps)
    assert error == pytest.approx(least_error(taps), rel=1e-6)
    for place in itertools.product(range(2), range(6)):
        step = torch.zeros_like(taps)
        step[place] = 1e-4
        expected = (least_error(taps + step) - least_error(taps - step)) / 2e-4
        assert float(slope[place]) == pytest.approx(expected, rel=1e-5, abs=1e-7 * problem.total)


def chain() -> nn.Sequential:
    convs = [nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU()]
    head = [nn.Conv2d(16, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 6)]
    return randomize(nn.Sequential(*convs, *head))


def compress(network: nn.Module, x: Tensor, **config) -> Decomposition:
    asked = DecomposeConfig(**{"target_value": 0.5, **config})
    *_, end = decompose_(network, x[:1], asked, lambda: iter(x.split(32)))
    assert isinstance(end, Decomposition)
    return end


def answer(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x).double()


def apart(y: Tensor, y_hat: Tensor) -> float:
    return float((y - y_hat).norm() / y.norm())


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_the_order_of_channels_does_not_matter(basis):
    plain, mixed, x = chain(), chain(), images()
    order = torch.randperm(12, generator=seeded(3))
    mixed[0].weight.data, mixed[0].bias.data = plain[0].weight[order].detach(), plain[0].bias[order].detach()
    mixed[2].weight.data = plain[2].weight[:, order].detach()
    ends = [compress(network, x, basis=basis) for network in (plain, mixed)]
    chosen = [[(layer.form, layer.rank) for layer in end.layers] for end in ends]
    assert chosen[0] == chosen[1]
    assert apart(answer(plain, x), answer(mixed, x)) < 1e-3


@pytest.mark.parametrize("power", [-40, -13, 13, 40])  # about 1e-12 to 1e12
@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_neither_do_the_units_in_which_channels_are_measured(basis, power):
    plain, scaled, x = chain(), chain(), images()
    unit = 2.0**power
    for tensor in (scaled[0].weight, scaled[0].bias):
        tensor.data *= unit
    scaled[2].weight.data /= unit
    ends = [compress(network, x, basis=basis) for network in (plain, scaled)]
    chosen = [[(layer.form, layer.rank) for layer in end.layers] for end in ends]
    assert chosen[0] == chosen[1]
    assert apart(answer(plain, x), answer(scaled, x)) < 1e-3


@pytest.mark.parametrize("power", [-40, 40])
def test_nor_the_images_or_the_outputs_units(power):
    plain, scaled, x = chain(), chain(), images()
    unit = 2.0**power
    scaled[0].weight.data /= unit
    for tensor in (scaled[8].weight, scaled[8].bias):
        tensor.data *= unit
    ends = [compress(plain, x), compress(scaled, x * unit)]
    chosen = [[(layer.form, layer.rank) for layer in end.layers] for end in ends]
    assert chosen[0] == chosen[1]
    assert apart(answer(plain, x), answer(scaled, x * unit) / unit) < 1e-3


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_layers_of_rank_one_shrink_to_it_and_lose_nothing(basis):
    network, x = chain(), images()
    for layer in (network[0], network[2], network[4]):
        outputs, inputs = len(layer.weight), layer.weight[0].numel()
        column, row = (
            torch.randn(outputs, 1, generator=seeded(1)),
            torch.randn(1, inputs, generator=seeded(2)),
        )
        layer.weight.data = (column @ row / inputs**0.5).view_as(layer.weight)
    original = copy.deepcopy(network)
    end = compress(network, x, basis=basis, forms="basis", target_value=0.3)
    assert all(layer.rank is not None for layer in end.layers[:3])
    assert apart(answer(original, x), answer(network, x)) < 1e-2


@pytest.mark.parametrize("basis", ["weights", "activations"])
@pytest.mark.parametrize("forms", ["basis", "auto"])
def test_layers_of_zeros_lose_nothing(basis, forms):
    network, x = chain(), images()
    for layer in (network[0], network[4]):
        layer.weight.data.zero_()
    original = copy.deepcopy(network)
    compress(network, x, basis=basis, forms=forms, target_value=0.4)
    assert apart(answer(original, x), answer(network, x)) < 1e-5


@pytest.mark.parametrize("forms", ["basis", "auto"])
def test_images_that_are_all_the_same_gray_are_answered_as_before(forms):
    network, x = chain(), torch.full((40, 3, 12, 12), 0.3)
    original = copy.deepcopy(network)
    compress(network, x, forms=forms, target_value=0.4)
    assert apart(answer(original, x), answer(network, x)) < 1e-4
    other = images()
    assert (
        apart(answer(original, other), answer(network, other)) < 1.5
    )  # the weights decide what nothing else does


@pytest.mark.parametrize("seen", [0, 2])
def test_what_the_images_never_showed_is_decided_by_the_weights(seen):
    """Of twelve directions two were seen, or none: the other ranks are the best of what is left."""
    linear = randomize(nn.Linear(12, 8)).double()
    ways = torch.randn(2, 12, generator=seeded(4), dtype=torch.float64)
    x = torch.randn(60, 2, generator=seeded(5), dtype=torch.float64) @ ways
    x = x if seen else x[:1].expand(60, -1)
    plain = (output_metric(torch.zeros(8, 8, dtype=torch.float64)),)
    fitted = fit_pair(site_of(linear, x), observed(linear, x), plain, "basis", 5)
    with torch.no_grad():
        lost = float((linear.weight - fitted.layer.to_dense().weight).square().sum())
        best = float(torch.linalg.svdvals(linear.weight)[5:].square().sum())
    assert fitted.error < 1e-6
    assert lost < best * (1.5 if seen else 1 + 1e-9)


@pytest.mark.parametrize("basis", ["weights", "activations"])
def test_the_same_request_gives_the_same_network_to_the_bit_for_every_basis(basis):
    first, second, x = chain(), chain(), images()
    for network in (first, second):
        compress(network, x, basis=basis, seed=4)
    states = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
