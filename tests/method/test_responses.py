"""Statistics of calibration images, and the regression on them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basisconv.basis.activations import Metric, basis_factors, output_metric, regression, response_energies
from basisconv.basis.separable import Separation, separate
from basisconv.calibrate import STRIP, Moments, fisher, patch_moments
from basisconv.patches import choose_positions, input_rows, response_rows
from tests.method.shelf import Residual, convolutions, images, input_for, randomize, seeded

quick = settings(max_examples=60, deadline=None)
PLAIN = 1e-9  # a metric that is nearly the identity


def spd(size: int, seed: int, rank: int | None = None) -> torch.Tensor:
    root = torch.randn(size, rank or 2 * size, generator=seeded(seed), dtype=torch.float64)
    return root @ root.T / root.shape[1]


def identity(size: int) -> Metric:
    return output_metric(torch.zeros(size, size, dtype=torch.float64))


@quick
@given(convolutions())
def test_the_weight_times_a_patch_is_the_response_at_that_place(conv):
    x = input_for(conv)
    y = conv(x).detach()
    positions = torch.arange(y[0, 0].numel())[::3]
    weight_GOI = conv.weight.detach().reshape(conv.groups, conv.out_channels // conv.groups, -1)
    expected = input_rows(conv, x, positions) @ weight_GOI.mT
    if conv.bias is not None:
        expected = expected + conv.bias.detach().reshape(conv.groups, 1, -1)
    torch.testing.assert_close(expected, response_rows(conv, y, positions), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("channels", "most"), [(1, 64), (60, 135), (900, 256)])
def test_some_places_of_an_image_are_looked_at_each_once_and_more_for_wide_layers(channels, most):
    conv = nn.Conv2d(channels, 1, 3)
    few = choose_positions(conv, torch.zeros(2, 1, 5, 5), seeded(0))
    many = choose_positions(conv, torch.zeros(2, 1, 40, 40), seeded(0))
    assert few.tolist() == list(range(25))
    assert len(many) == len(set(many.tolist())) == most


def test_streamed_moments_equal_those_of_all_rows_at_once_even_far_from_zero():
    x = torch.randn(2, 500, 6, generator=seeded(0)) * 3 + 1000
    t = x @ torch.randn(2, 6, 4, generator=seeded(1)) - 500
    streamed = Moments()
    for part in (slice(0, 7), slice(7, 300), slice(300, 500)):
        streamed.add(x[:, part], t[:, part])
    found, x, t = streamed.covariances(), x.double(), t.double()
    dx, dt = x - x.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    torch.testing.assert_close(found.mean_x, x.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.gram, dx.mT @ dx / 500, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.cross, dt.mT @ dx / 500, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.variance_t, dt.square().mean(1), rtol=1e-4, atol=0)


def test_moments_take_the_same_memory_for_any_number_of_images():
    conv = nn.Conv2d(2, 3, 3)
    sizes = []
    for batches in (1, 20):
        found = patch_moments(conv, {"": conv}, [torch.randn(4, 2, 8, 8)] * batches, seeded(0))[""]
        sizes.append(sum(total.numel() for total in found._sums.values()))
    assert sizes[0] == sizes[1]


def test_the_metric_of_a_scalar_output_is_its_gradients_second_moment():
    # for one scalar output the random sign squares to one: no randomness is left
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 1))
    randomize(network)
    x = images(2, 6, 5)
    found = fisher(network, {"0": network[0]}, [x[:2], x[2:]], seeded(0))["0"][0]
    y = network[0](x).detach().requires_grad_()
    (grad,) = torch.autograd.grad(network[3](F.relu(y).flatten(1)).sum(), y)
    expected = torch.einsum("nohw,nphw->op", grad, grad).double() / 5
    torch.testing.assert_close(found / found.trace(), expected / expected.trace(), rtol=1e-4, atol=1e-7)


def test_the_metric_of_probabilities_is_that_of_the_logits_before_them():
    network = randomize(Residual())
    with_softmax = nn.Sequential(network, nn.Softmax(1))
    x, layers = images(), {"c": network.block1.conv1}
    plain = fisher(network, layers, [x], seeded(0))["c"]
    soft = fisher(with_softmax, layers, [x], seeded(0))["c"]
    torch.testing.assert_close(plain, soft, rtol=1e-2, atol=float(plain.max()) * 1e-2)


def test_a_layer_that_the_outputs_do_not_feel_gets_the_plain_metric():
    metric = identity(4)
    torch.testing.assert_close(metric.root, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(metric.inverse, torch.eye(4, dtype=torch.float64))


@quick
@given(st.integers(2, 8), st.integers(0, 99), st.floats(1e-12, 1e12))
def test_a_metric_and_its_inverse_undo_each_other_at_any_scale(size, seed, scale):
    metric = output_metric(spd(size, seed, rank=max(1, size // 2)) * scale)
    eye = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(metric.root @ metric.inverse, eye, rtol=0, atol=1e-8)


def error(weight, approximation, gram, metric):
    rest = metric.root @ (weight - approximation)
    return float((rest @ gram @ rest.T).trace())


@quick
@given(st.integers(2, 7), st.integers(2, 9), st.integers(0, 99), st.data())
def test_no_other_pair_of_that_rank_errs_less(outputs, inputs, seed, data):
    """A direct solver: alternating least squares from many starts never gets below the closed form."""
    rank = data.draw(st.integers(1, min(outputs, inputs)))
    weight = torch.randn(outputs, inputs, generator=seeded(seed), dtype=torch.float64)
    gram, metric = spd(inputs, seed + 1), output_metric(spd(outputs, seed + 2))
    scaled = metric.root @ weight
    basis, mixing = basis_factors(weight, gram, metric, rank)
    found = error(weight, mixing @ basis, gram, metric)
    for start in range(3):
        rows = torch.randn(rank, inputs, generator=seeded(start), dtype=torch.float64)
        for _ in range(50):
            columns = torch.linalg.lstsq((rows @ gram @ rows.T), rows @ gram @ scaled.T).solution.T
            rows = torch.linalg.lstsq(columns, scaled).solution
        other = error(weight, metric.inverse @ columns @ rows, gram, metric)
        assert found <= other * (1 + 1e-6) + 1e-9
    values = response_energies(weight, gram, metric)
    assert found == pytest.approx(float(values[rank:].sum()), rel=1e-6, abs=1e-9)  # what the plan predicted


@pytest.mark.parametrize(("outputs", "inputs", "rank"), [(9, 3, 2), (9, 3, 3), (3, 9, 3)])
def test_a_layer_with_more_outputs_than_inputs_is_no_different(outputs, inputs, rank):
    weight = torch.randn(outputs, inputs, generator=seeded(0), dtype=torch.float64)
    weight[:, 0] = 0  # an input without weights: fewer directions than inputs
    gram, metric = spd(inputs, 1, rank=2), output_metric(spd(outputs, 2))
    values = response_energies(weight, gram, metric)
    scaled = metric.root @ weight
    expected = torch.linalg.eigvalsh(scaled @ gram @ scaled.T).flip(0)[: min(outputs, inputs)]
    torch.testing.assert_close(values, expected.clamp_min(0), rtol=1e-8, atol=1e-9 * float(expected[0]))
    basis, mixing = basis_factors(weight, gram, metric, rank)
    torch.testing.assert_close(basis @ basis.T, torch.eye(rank, dtype=torch.float64))
    lost = error(weight, mixing @ basis, gram, metric)
    assert lost == pytest.approx(float(values[rank:].sum()), rel=1e-6, abs=1e-9)


def test_a_wide_covariance_is_summed_on_one_side_of_the_diagonal_and_mirrored():
    rows = torch.randn(1, 40, 2 * STRIP + 3, generator=seeded(0), dtype=torch.float64)
    moments = Moments()
    for part in rows.split(15, dim=1):
        moments.add(part)
    gram = moments.covariances().gram
    torch.testing.assert_close(gram[0], torch.cov(rows[0].T, correction=0))


def test_a_metric_of_gradients_whose_squares_float32_cannot_hold_is_found():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 4))
    randomize(network)
    x = images(2, 6, 5)
    usual = fisher(network, {"0": network[0]}, [x], seeded(0))["0"]
    network[2].weight.data *= 1e-30
    tiny = fisher(network, {"0": network[0]}, [x], seeded(0))["0"]
    torch.testing.assert_close(tiny / tiny.sum(), usual / usual.sum(), rtol=1e-3, atol=1e-6)


def test_regression_finds_the_weights_that_made_the_responses():
    x = torch.randn(4000, 6, generator=seeded(0), dtype=torch.float64)
    true = torch.randn(3, 6, generator=seeded(1), dtype=torch.float64)
    moments = Moments()
    moments.add(x[None], (x @ true.T + 5)[None])
    seen = moments.covariances()
    found = regression(torch.zeros(3, 6, dtype=torch.float64), seen.gram[0], seen.cross[0])
    torch.testing.assert_close(found, true, rtol=0.01, atol=0.01)


def test_regression_leaves_the_weights_where_the_input_never_varies_or_nothing_was_lost():
    weight = torch.randn(3, 5, generator=seeded(0), dtype=torch.float64)
    still = torch.zeros(5, 5, dtype=torch.float64)
    torch.testing.assert_close(regression(weight, still, weight @ still), weight)
    gram = spd(5, 3, rank=2)  # most directions are dead
    torch.testing.assert_close(regression(weight, gram, weight @ gram), weight)


def problem(seed: int, out: int = 6, inputs: int = 4, a: int = 3, b: int = 2) -> Separation:
    weight = torch.randn(out, inputs, a, b, generator=seeded(seed), dtype=torch.float64)
    return Separation.of(weight, spd(inputs * a * b, seed + 1), output_metric(spd(out, seed + 2)))


@pytest.mark.parametrize("seed", range(4))
def test_predicted_separable_errors_fall_to_zero_and_the_fit_is_at_least_as_good(seed):
    found = problem(seed)
    errors = found.errors(12)
    assert (errors[1:] <= errors[:-1] + 1e-9).all()
    assert float(errors[0]) == pytest.approx(found.total)
    assert float(errors[12]) < 1e-4 * found.total
    for rank in (1, 3, 7):
        taps, mixing = found.factors(rank)
        scaled = torch.tensordot(found.metric.root, mixing, dims=1)
        assert float(found.error(taps.flatten(1), scaled)) <= float(errors[rank]) * (1 + 1e-4)


def test_refinement_lowers_the_closed_forms_error():
    found = problem(0)
    taps, mixing = found.factors(3)
    scaled = torch.tensordot(found.metric.root, mixing, dims=1)
    assert float(found.error(taps.flatten(1), scaled)) < 0.98 * float(found.errors(3)[3])


def test_with_nothing_measured_the_separable_start_is_the_closest_in_weights():
    weight = torch.randn(5, 4, 3, 3, generator=seeded(0), dtype=torch.float64)
    still = Separation.of(weight, torch.zeros(36, 36, dtype=torch.float64), identity(5))
    taps, mixing = separate(weight, 4)
    closest = (weight - torch.einsum("orb,ria->oiab", mixing, taps)).square().sum()
    assert float(still.errors(4)[4]) == pytest.approx(float(closest), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_covariance_that_rounding_made_indefinite_does_not_drive_the_refinement_to_infinity(seed):
    random = seeded(seed)
    weight = torch.randn(8, 6, 3, 3, generator=random, dtype=torch.float64)
    rank_one = torch.randn(6 * 9, 1, generator=random, dtype=torch.float64)
    noise = torch.randn(6 * 9, 6 * 9, generator=random, dtype=torch.float64)
    gram = rank_one @ rank_one.T + 1e-6 * (noise + noise.T)
    assert torch.linalg.eigvalsh(gram)[0] < -1e-6 * gram.diagonal().mean()  # worse than the least jitter
    metric = output_metric(torch.eye(8, dtype=torch.float64))
    problem = Separation.of(weight, gram, metric)
    taps, mixing = problem.factors(1)
    product = torch.einsum("orb,ria->oiab", mixing, taps)
    assert float(product.abs().max()) < 10 * float(weight.abs().max())
    assert float(problem.errors(3).min()) >= 0
