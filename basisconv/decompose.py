"""The whole decomposition: measure, choose for all layers at once, then fit from front to back."""

from collections.abc import Generator as Steps
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from basisconv.calibrate import Images
from basisconv.config import DecomposeConfig, Decomposition, Progress
from basisconv.front_to_back import fit_
from basisconv.latency.planning import plan_timed, time_network
from basisconv.latency.table import TIMING
from basisconv.latency.timer import Timer
from basisconv.measure import measure
from basisconv.options import Measured
from basisconv.plan import plan


def decompose_(
    module: nn.Module,
    example: Tensor,
    config: DecomposeConfig,
    images: Images | None = None,
    timer: Timer | None = None,
) -> Iterator[Progress | Decomposition]:
    """Replace layers of `module` in place; the last item is the Decomposition.

    `example`: an input batch N x C x H x W. `images()`: a fresh pass over preprocessed float batches on the
    module's device, always the same in the same order; needed for basis "activations", unused for
    "weights". 512 to 1024 images of the training set are enough; labels are not needed. `timer`: of this
    module in the runtime that a latency target is about; unused for other targets.

    Raises, before anything changes: InvalidRequest (a value that does not fit), MalformedWeights (weights,
    inputs or gradients that are not finite, naming the layer) and InfeasibleTarget (with `achievable`).
    Later, with the module half changed: MalformedWeights, if a layer's decomposition fails.

    Several budgets for one network: `measure` it once, then `plan` and `fit_` a copy for each.
    """
    latency = config.target_kind == "latency"
    timed = (yield from time_network(module, example, config, timer)) if latency else None
    began = TIMING if latency else 0.0
    measured = yield from _from(began, measure(module, example, config, images))
    planned = plan(measured, config) if timed is None else (yield from plan_timed(measured, config, timed))
    yield (yield from fit_(module, example, measured, planned, images))


def _from(began: float, steps: Steps[Progress, None, Measured]) -> Steps[Progress, None, Measured]:
    """The same steps, as what follows when a part of the stage "calibrate" is done."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            measured: Measured = end.value
            return measured
        done = began + (1 - began) * step.fraction if step.stage == "calibrate" else step.fraction
        yield replace(step, fraction=done)
