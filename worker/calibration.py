"""Which train images a job measures on, and which it holds back to judge by; never of the test part."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from worker.data.materialize import Images
from worker.data.preprocess import batches
from worker.measure import TestImages, batch_size
from worker.work import Work

CALIBRATION_IMAGES: Final = 1024  # method.md's figures need 512 to 1024
HELD_BACK_IMAGES: Final = 5_000  # a loss of one point is then known to about 0.2 points
HELD_BACK_BYTES: Final = 400_000_000  # of their pixels: 2,600 images of 224 pixels

Rows = npt.NDArray[Any]


def calibration_images(work: Work, most: int = CALIBRATION_IMAGES) -> Callable[[], Iterator[Tensor]] | None:
    """Fresh passes over the same train images (or those made), whole batches where the size is fixed."""
    found = calibration_set(work, most)
    if found is None:
        return None
    x = found.x
    fixed = work.network.module_batch
    size = fixed or min(64, batch_size(work.example[0].numel()))

    def images() -> Iterator[Tensor]:
        for batch in batches(x, None, work.spec, batch_size=size, device=work.device, fixed=bool(fixed)):
            yield batch.x

    return images


def calibration_set(work: Work, most: int = CALIBRATION_IMAGES) -> TestImages | None:
    """At most `most` of the images that calibration sees, labelled where the data set is."""
    if work.images is not None:
        rows, _ = _rows(work.images, hold_back=work.allowed_loss is not None, most=most)
        labels = None if work.images.train_y is None else work.images.train_y[rows]
        return TestImages(work.images.train_x[rows], labels, work.spec, real=True)
    if work.synthetic is None:
        return None
    return TestImages(work.synthetic.calibration[:most].cpu().numpy(), None, work.spec, real=False)


def held_back(work: Work) -> TestImages:
    """Train images that calibration does not see; labelled where the data set is."""
    assert work.images is not None
    _, rows = _rows(work.images, hold_back=True)
    labels = None if work.images.train_y is None else work.images.train_y[rows]
    return TestImages(work.images.train_x[rows], labels, work.spec, real=True)


def random_order(count: int) -> Rows:
    """All rows; calibration draws from the front."""
    return np.random.RandomState(0).permutation(count)


def _rows(images: Images, *, hold_back: bool, most: int = CALIBRATION_IMAGES) -> tuple[Rows, Rows]:
    """Rows to calibrate on and rows held back, always the same, each in their own order.

    Drawn from everywhere: class folders are stored class by class. At least half of a small part is held
    back where anything is.
    """
    count = len(images.train_x)
    order = random_order(count)
    seen = min(most, -(-count // 2)) if hold_back else most
    judged = min(HELD_BACK_IMAGES, max(1, HELD_BACK_BYTES // images.train_x[:1].nbytes))
    return np.sort(order[:seen]), np.sort(order[seen : seen + judged])
