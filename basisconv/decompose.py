"""The whole decomposition: measure, choose for all layers at once, then fit from front to back."""

from collections.abc import Iterator

from torch import Tensor, nn

from basisconv.calibrate import Images
from basisconv.config import DecomposeConfig, Decomposition, Progress
from basisconv.front_to_back import fit_
from basisconv.measure import measure
from basisconv.plan import plan


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

    Several budgets for one network: `measure` it once, then `plan` and `fit_` a copy for each.
    """
    measured = yield from measure(module, example, config, images)
    yield (yield from fit_(module, example, measured, plan(measured, config), images))
