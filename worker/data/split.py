"""Splitting off a test part: 20 %, by class, the same every time."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

TEST_SHARE: Final = 0.2


def choose_test_rows(labels: npt.NDArray[Any] | None, count: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which of `count` examples become the test part: round(20 %), at least 1 and at most all but one.

    Every class gives its 20 %, rounded up or down so that the total is exact (largest remainder).
    RandomState, not Generator: its stream is frozen, so a data set is split alike by every numpy.
    """
    classes = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    _, group, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    total = min(max(round(TEST_SHARE * count), 1), count - 1)
    quotas = _apportion(sizes, total)
    random = np.random.RandomState(seed)
    chosen = np.zeros(count, np.bool_)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    for rows, quota in zip(members, quotas, strict=True):
        chosen[random.permutation(rows)[:quota]] = True
    return chosen


def _apportion(sizes: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    exact = sizes * (total / sizes.sum())
    quotas = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - quotas), kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    return quotas
