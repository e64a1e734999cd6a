"""A plan carried out on a network in place: each layer fitted on what the layers before it have become."""

import copy
from collections.abc import Generator as Steps
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import Generator, Tensor, nn

from basisconv.basis.activations import Metric
from basisconv.basis.weights import grouped_weight
from basisconv.calibrate import Images, Moments
from basisconv.config import Decomposition, LayerOutcome, Progress
from basisconv.cost import Site, count
from basisconv.errors import InvalidRequest
from basisconv.fit import fit_pair, refit_
from basisconv.graph import trace
from basisconv.nn import BasisConv2d, BasisLinear, Factorized, SeparableConv2d
from basisconv.observe import GraphObserver, HookObserver, Observer
from basisconv.options import Measured, Option
from basisconv.patches import choose_positions, response_rows, seen_rows
from basisconv.plan import Planned
from basisconv.refine import Refinement
from basisconv.surgery import replace_

Outcomes = Steps[Progress, None, list[LayerOutcome]]


def fit_(
    module: nn.Module,
    example: Tensor,
    measured: Measured,
    planned: Mapping[str, Planned],
    images: Images | None = None,
) -> Steps[Progress, None, Decomposition]:
    """Change `module` in place as planned; yields progress and returns the Decomposition.

    `module` is the network that was measured or an unchanged copy of it: to try several plans, fit each
    on a copy. `images` as for decompose_, the same that were measured on; unused where `measured` is by
    the weights alone. Equal arguments give equal networks.

    Raises MalformedWeights, with the module half changed, if a layer's decomposition fails.
    """
    found = [replace(s, module=module.get_submodule(s.layer.name)) for s in measured.sites]
    with _in_eval_mode(module):
        if not measured.metrics:
            outcomes = yield from _by_weights(module, found, planned)
        elif images is None:
            raise InvalidRequest("a plan by measured responses needs images to fit on")
        else:
            outcomes = yield from _by_activations(module, example, found, measured, planned, images)
    return Decomposition(outcomes, count(module, example))


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _by_weights(module: nn.Module, found: list[Site], planned: Mapping[str, Planned]) -> Outcomes:
    """The paper: each layer from its own filters, nothing measured."""
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
    module: nn.Module,
    example: Tensor,
    found: list[Site],
    measured: Measured,
    planned: Mapping[str, Planned],
    images: Images,
) -> Outcomes:
    generator = Generator()
    assert measured.random is not None
    generator.set_state(measured.random)
    original = copy.deepcopy(module)
    errors: dict[str, float] = {}
    open_sites = {s.layer.name: s for s in found if s.layer.name in measured.metrics}
    observer = _observer(module, original, example, list(open_sites.values()), images, measured.batches)
    todo = _fits(observer, open_sites, planned)
    windows = Refinement.over(module, example, todo, planned, observer, images, generator)
    for done, site in enumerate(todo):
        path = site.layer.name
        yield Progress("decompose", done / len(todo), path)
        windows.enter_before(path)
        error = _fit(module, site, planned[path].option, observer, measured.metrics, generator)
        if error is not None:
            errors[path] = error
        windows.leave_after(path)
    return [_outcome(s, planned[s.layer.name], errors.get(s.layer.name)) for s in found]


def _observer(
    module: nn.Module,
    original: nn.Module,
    example: Tensor,
    open_sites: list[Site],
    images: Images,
    batches: int,
) -> Observer:
    """Along the graph, where there is one and it shows every open layer's calls."""
    calls = {site.layer.name: site.layer.calls for site in open_sites}
    graph = trace(original, example)
    if graph is not None:
        observer = GraphObserver(graph, original, module, images, batches)
        if all(observer.calls(path) == count for path, count in calls.items()):
            return observer
    return HookObserver(calls, original, module, images)


def _fits(observer: Observer, open_sites: dict[str, Site], planned: Mapping[str, Planned]) -> list[Site]:
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
    metrics: Mapping[str, tuple[Metric, ...]],
    generator: Generator,
) -> float | None:
    """Replace or refit one layer; the error of a pair."""
    path = site.layer.name
    moments = Moments()
    for x, target in observer.observe(path):
        positions = choose_positions(site.target, target, generator)
        moments.add(seen_rows(site.target, x, positions), response_rows(site.target, target, positions))
    if not moments.rows:  # values decide what runs, and what came before keeps all images from the layer
        return _fit_unseen(module, site, option)
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


def _fit_unseen(module: nn.Module, site: Site, option: Option) -> float | None:
    """From the filters alone; a layer that stays dense stays as it is."""
    if option.form == "dense":
        return None
    pair = _from_weights(site, option)
    replace_(module, {site.layer.name: pair})
    return _energy_lost(site, pair)


def _outcome(site: Site, choice: Planned, error: float | None) -> LayerOutcome:
    option = choice.option
    replaced = option.form != "dense"
    return LayerOutcome(site.layer.name, option.form, option.rank, replaced, choice.reason, error)
