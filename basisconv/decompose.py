"""The whole decomposition: measure, choose for all layers at once, then fit from front to back."""

import copy
from collections.abc import Generator as Steps
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from basisconv.basis.activations import Metric, output_metric
from basisconv.basis.weights import grouped_weight
from basisconv.calibrate import Images, Moments, fisher, patch_moments
from basisconv.config import DecomposeConfig, Decomposition, LayerOutcome, Progress
from basisconv.cost import Site, check_weights, count, sites
from basisconv.errors import InvalidRequest, MalformedWeights
from basisconv.fit import fit_pair, refit_
from basisconv.graph import trace
from basisconv.nn import BasisConv2d, BasisLinear, Factorized, SeparableConv2d
from basisconv.observe import GraphObserver, HookObserver, Observer
from basisconv.options import Option, Statistics
from basisconv.patches import choose_positions, response_rows, seen_rows, seen_width
from basisconv.plan import Planned, candidates, check_feasible, check_request, plan
from basisconv.reasons import Reason
from basisconv.surgery import replace_

GRAM_BYTES = 1 << 30  # of patch covariances collected in one pass over the images; beyond it, more passes
_REFITTED = {Reason.WITHIN_BUDGET.value, Reason.NOT_CHEAPER.value, Reason.LINEAR.value}

Outcomes = Steps[Progress, None, list[LayerOutcome]]


def decompose_(
    module: nn.Module, example: Tensor, config: DecomposeConfig, images: Images | None = None
) -> Iterator[Progress | Decomposition]:
    """Replace layers of `module` in place; the last item is the Decomposition.

    `example`: an input batch N x C x H x W. `images()`: a fresh pass over preprocessed float batches on the
    module's device, always the same in the same order; needed for basis "activations", unused for
    "weights". 512 to 1024 images of the training set are enough; labels are not needed.

    Raises, before anything changes: InvalidRequest (a value that does not fit), MalformedWeights (weights,
    inputs or gradients that are not finite, naming the layer) and InfeasibleTarget (with `achievable`).
    Later, with the module half changed: MalformedWeights, if a layer's decomposition fails.
    """
    if config.basis == "activations" and images is None:
        hint = "Give a data set, or ask for basis weights."
        raise InvalidRequest("a basis of activations needs images", hint=hint)
    found = check(module, example, config)
    with _in_eval_mode(module):
        if config.basis == "weights" or images is None:
            outcomes = yield from _by_weights(module, example, config, found)
        else:
            outcomes = yield from _by_activations(module, example, config, found, images)
    yield Decomposition(outcomes, count(module, example))


def check(module: nn.Module, example: Tensor, config: DecomposeConfig) -> list[Site]:
    """The layers, when the request fits the network and its budget can be met; needs no images.

    Raises InvalidRequest, MalformedWeights (naming the layer) and InfeasibleTarget (with `achievable`).
    """
    check_weights(module)
    found = sites(module, example)
    check_request(found, config)
    check_feasible(found, count(module, example), config)
    return found


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _by_weights(module: nn.Module, example: Tensor, config: DecomposeConfig, found: list[Site]) -> Outcomes:
    """The paper: each layer from its own filters, nothing measured."""
    yield Progress("decompose", 0.0, "Choosing ranks")
    planned = plan(found, count(module, example), config, {})
    outcomes = []
    for done, site in enumerate(found):
        choice = planned[site.layer.name]
        error = None
        if choice.option.form != "dense":
            pair = _from_weights(site, choice.option)
            error = _energy_lost(site, pair)
            replace_(module, {site.layer.name: pair})
        outcomes.append(_outcome(site, choice, error))
        yield Progress("decompose", (done + 1) / len(found), site.layer.name)
    return outcomes


def _from_weights(site: Site, option: Option) -> Factorized:
    layer, form, rank = site.target, option.form, option.rank
    assert rank is not None
    if isinstance(layer, nn.Linear):
        return BasisLinear.from_linear(layer, rank)
    if form == "basis":
        return BasisConv2d.from_conv(layer, rank)
    assert form != "dense"
    return SeparableConv2d.from_conv(layer, rank, form)


def _energy_lost(site: Site, pair: Factorized) -> float:
    before, after = grouped_weight(site.target), grouped_weight(pair.to_dense())
    total = float(before.square().sum())
    return float((before - after).square().sum()) / total if total > 0 else 0.0


def _by_activations(
    module: nn.Module, example: Tensor, config: DecomposeConfig, found: list[Site], images: Images
) -> Outcomes:
    """Measured responses: statistics of the original, one plan, then a fit per layer, front to back."""
    generator = Generator().manual_seed(config.seed)
    yield Progress("calibrate", 0.0, "Measuring what each layer's errors do to the output")
    open_sites = candidates(found, config)
    metrics, batches = _metrics(module, open_sites, images, generator)
    statistics: dict[str, Statistics] = {}
    for some in _chunks(open_sites):
        yield Progress("calibrate", 0.4 + 0.6 * len(statistics) / len(open_sites), "Measuring responses")
        statistics |= _statistics(module, some, metrics, images, generator)
    planned = plan(found, count(module, example), config, statistics)
    statistics.clear()  # the covariances of large networks take gigabytes
    original = copy.deepcopy(module)
    observer = _observer(module, original, example, [s.layer.name for s in found], images, batches)
    errors: dict[str, float] = {}
    todo = _fits(observer, {site.layer.name: site for site in open_sites}, planned)
    for done, site in enumerate(todo):
        yield Progress("decompose", done / len(todo), site.layer.name)
        error = _fit(module, site, planned[site.layer.name].option, observer, metrics, generator)
        if error is not None:
            errors[site.layer.name] = error
    return [_outcome(s, planned[s.layer.name], errors.get(s.layer.name)) for s in found]


def _metrics(
    module: nn.Module, open_sites: list[Site], images: Images, generator: Generator
) -> tuple[dict[str, tuple[Metric, ...]], int]:
    """Every layer's output metric per group, and the number of batches."""
    batches = 0

    def counted() -> Iterator[Tensor]:
        nonlocal batches
        for x in images():
            batches += 1
            yield x

    moments = fisher(module, {s.layer.name: s.target for s in open_sites}, counted(), generator)
    if not batches:
        raise InvalidRequest("there are no images to calibrate on")
    for path, second_moments in moments.items():
        if not torch.isfinite(second_moments).all():
            raise MalformedWeights(path, "the outputs' gradients on the calibration images are not finite")
    return {
        path: tuple(output_metric(f) for f in fisher_GOO) for path, fisher_GOO in moments.items()
    }, batches


def _chunks(open_sites: list[Site]) -> Iterator[list[Site]]:
    """Layers whose patch covariances fit into memory together."""
    some: list[Site] = []
    size = 0
    for site in open_sites:
        bytes_ = 8 * site.layer.groups * seen_width(site.target) ** 2
        if some and size + bytes_ > GRAM_BYTES:
            yield some
            some, size = [], 0
        some.append(site)
        size += bytes_
    if some:
        yield some


def _statistics(
    module: nn.Module,
    some: list[Site],
    metrics: dict[str, tuple[Metric, ...]],
    images: Images,
    generator: Generator,
) -> dict[str, Statistics]:
    moments = patch_moments(module, {s.layer.name: s.target for s in some}, images(), generator)
    found = {path: moment.covariances().gram for path, moment in moments.items()}
    for path, gram in found.items():
        if not torch.isfinite(gram).all():
            raise MalformedWeights(path, "its inputs on the calibration images are NaN or infinite")
    return {path: Statistics(gram, metrics[path]) for path, gram in found.items()}


def _observer(
    module: nn.Module, original: nn.Module, example: Tensor, order: list[str], images: Images, batches: int
) -> Observer:
    graph = trace(original, example)
    if graph is None:
        return HookObserver(order, original, module, images)
    return GraphObserver(graph, original, module, images, batches)


def _fits(observer: Observer, open_sites: dict[str, Site], planned: dict[str, Planned]) -> list[Site]:
    """What to fit, front to back: the pairs, and what stays dense behind the first of them."""
    ordered = [open_sites[path] for path in observer.order if path in open_sites]
    pairs = [planned[site.layer.name].option.form != "dense" for site in ordered]
    first = pairs.index(True) if True in pairs else len(pairs)
    return ordered[first:]


def _fit(
    module: nn.Module,
    site: Site,
    option: Option,
    observer: Observer,
    metrics: dict[str, tuple[Metric, ...]],
    generator: Generator,
) -> float | None:
    """Replace or refit one layer; the error of a pair."""
    path = site.layer.name
    moments = Moments()
    for x, target in observer.observe(path):
        positions = choose_positions(site.target, target, generator)
        moments.add(seen_rows(site.target, x, positions), response_rows(site.target, target, positions))
    seen = moments.covariances()
    if option.form == "dense":
        norm = observer.norm_after(path)
        found = module.get_submodule(norm) if norm is not None else None
        assert found is None or isinstance(found, nn.BatchNorm2d)
        refit_(site, seen, found)
        return None
    assert option.rank is not None
    fitted = fit_pair(site, seen, metrics[path], option.form, option.rank)
    replace_(module, {path: fitted.layer})
    return fitted.error


def _outcome(site: Site, choice: Planned, error: float | None) -> LayerOutcome:
    option = choice.option
    replaced = option.form != "dense"
    return LayerOutcome(site.layer.name, option.form, option.rank, replaced, choice.reason, error)
