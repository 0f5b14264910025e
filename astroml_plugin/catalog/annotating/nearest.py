"""The nearest of many points, in bounded memory."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import F64, I64

_CHUNK = 4_000_000


def nearest(values: F64, centres: np.ndarray) -> tuple[I64, F64]:
    """(n,) number of the nearest of the centres (m, k) to each of the values (n, k), and its distance."""
    at, best = np.zeros(len(values), np.int64), np.full(len(values), np.inf)
    step = max(1, _CHUNK // max(1, len(values)))
    squares = np.square(values).sum(axis=1)
    for start in range(0, len(centres), step):
        part = np.asarray(centres[start : start + step], np.float64)
        far = squares[:, None] + np.square(part).sum(axis=1)[None] - 2 * values @ part.T
        found = far.argmin(axis=1)
        closer = far[np.arange(len(values)), found] < best
        at[closer], best[closer] = found[closer] + start, far[np.arange(len(values)), found][closer]
    exact: F64 = np.sqrt(np.square(values - np.asarray(centres, np.float64)[at]).sum(axis=1))
    return at, exact
