"""The paper's rule: one threshold t for all layers."""

import numpy as np
from numpy.typing import ArrayLike

from basisconv.errors import InvalidRequest


def energy_rank(energies: ArrayLike, threshold: float) -> int:
    """Smallest R whose share of the energy reaches `threshold`: sum(d[:R]) / sum(d) >= t.

    `energies`: (n,) in descending order. At t = 1 rounding must not ask for more than the numerical
    rank: shares are compared with a slack of 1e-12. All-zero energies give rank 1.
    """
    if not 0 < threshold <= 1:
        raise InvalidRequest(f"the energy threshold must be in (0, 1], got {threshold}")
    values = np.asarray(energies, np.float64)
    total = values.sum()
    if total <= 0:
        return 1
    short = values.cumsum() / total < threshold - 1e-12
    return min(int(short.sum()) + 1, len(values))
