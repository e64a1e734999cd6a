"""What the original tells, once for every budget: what each layer could become, at what price and harm."""

from collections.abc import Generator as Steps
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from basisconv.basis.activations import Metric, output_metric
from basisconv.calibrate import Images, fisher, patch_moments
from basisconv.config import BUDGETS, DecomposeConfig, Progress
from basisconv.cost import Site, check_weights, count, sites
from basisconv.errors import InvalidRequest, MalformedWeights
from basisconv.options import Measured, Option, Statistics, spectra
from basisconv.patches import seen_width
from basisconv.plan import candidates, check_feasible, check_request, table
from basisconv.reasons import Reason

GRAM_BYTES = 1 << 30  # of patch covariances collected in one pass over the images; beyond it, more passes


def measure(
    module: nn.Module, example: Tensor, config: DecomposeConfig, images: Images | None = None
) -> Steps[Progress, None, Measured]:
    """Yields progress and returns what `plan` and `fit_` need, for any value of the same kind of target.

    Arguments as for decompose_; `module` is not changed. Covariances are dropped as soon as the options are
    known: they take gigabytes for large networks.

    Raises InvalidRequest (a value that does not fit), MalformedWeights (weights, inputs or gradients that
    are not finite, naming the layer) and InfeasibleTarget (with `achievable`).
    """
    if config.basis == "activations" and images is None:
        hint = "Give a data set, or images from basisconv.datafree.synthesize, or ask for basis weights."
        raise InvalidRequest("a basis of activations needs images", hint=hint)
    found = check(module, example, config)
    if config.basis == "weights" or images is None:
        yield Progress("decompose", 0.0, "Choosing ranks")
        return _of_weights(module, example, config, found)
    return (yield from _of_responses(module, example, config, found, images))


def check(module: nn.Module, example: Tensor, config: DecomposeConfig) -> list[Site]:
    """The layers, when the request fits the network and its budget can be met; needs no images.

    Raises InvalidRequest, MalformedWeights (naming the layer) and InfeasibleTarget (with `achievable`).
    """
    check_weights(module)
    found = sites(module, example)
    check_request(found, config)
    check_feasible(found, count(module, example), config)
    return found


def _of_weights(module: nn.Module, example: Tensor, config: DecomposeConfig, found: list[Site]) -> Measured:
    """Nothing measured: each layer by its own filters."""
    tables, energies = {}, {}
    for site in candidates(found, config):
        tables[site.layer.name], energies[site.layer.name] = _known(site, config, None)
    return Measured(found, count(module, example), tables, energies)


def _of_responses(
    module: nn.Module, example: Tensor, config: DecomposeConfig, found: list[Site], images: Images
) -> Steps[Progress, None, Measured]:
    generator = Generator().manual_seed(config.seed)
    yield Progress("calibrate", 0.0, "Measuring what each layer's errors do to the output")
    open_sites = candidates(found, config)
    metrics, batches = _metrics(module, open_sites, images, generator)
    unreached = {site.layer.name for site in open_sites} - metrics.keys()
    found = [_unreached(site) if site.layer.name in unreached else site for site in found]
    costs = count(module, example)
    check_feasible(found, costs, config)  # again: without the layers that no image reached
    open_sites = candidates(found, config)
    tables: dict[str, list[Option]] = {}
    energies: dict[str, Tensor] = {}
    for some in _chunks(open_sites):
        yield Progress("calibrate", 0.4 + 0.6 * len(tables) / len(open_sites), "Measuring responses")
        statistics = _statistics(module, some, metrics, images, generator)
        for site in some:
            path = site.layer.name
            tables[path], energies[path] = _known(site, config, statistics.pop(path))
    state = generator.get_state()
    return Measured(found, costs, tables, energies, metrics, batches, state)


def _unreached(site: Site) -> Site:
    """Nothing is known of a layer that no image reaches: it stays as it is."""
    return replace(site, layer=replace(site.layer, compressible=False, reason=Reason.NOT_REACHED.value))


def _known(site: Site, config: DecomposeConfig, statistics: Statistics | None) -> tuple[list[Option], Tensor]:
    """A layer's options for a budget, and the basis form's energies; only what the target needs."""
    budget = config.target_kind in BUDGETS
    energies = spectra(site, statistics) if budget or config.target_kind == "energy" else torch.empty(0)
    return table(site, config, statistics, energies) if budget else [], energies


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
