"""How the weights of the signs for 8-bit pictures are chosen: mergers with even ids decide, those with odd ids judge.

python -m benchmarks.anomaly --weights     # prints the choice; needs Galaxy Zoo (ASTROML_TEST_DATA)

Of the weights `STEPS` those of the greatest AUROC + RWS, the mean of both over bootstrap samples of the pictures with
even ids, found by changing one weight at a time for the better, from equal weights and from each sign alone: from equal
weights only, it stopped below what asymmetry alone reaches on the deciding half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.evaluation.ranking_metrics import auroc, rank_weighted_score
from astroml_plugin.tasks.anomaly.signs import SIGNS

STEPS = (0.0, 0.1, 0.3, 1.0)
POWER = 2.0
"""The recipe's."""
_SAMPLES = 30

Float = NDArray[np.float64]
Weights = tuple[float, ...]


def deciding(object_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which pictures decide."""
    return object_ids % 2 == 0


def chosen(tails: Mapping[str, Float], odd: NDArray[np.bool_], seed: int = 0) -> dict[str, float]:
    """Sign -> weight, from -lg p of the signs (n,) and which objects are anomalies (n,)."""
    names = [name for name in SIGNS if np.ptp(tails[name]) > 0]
    powers = np.array([tails[name] ** POWER for name in names])
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(odd), np.flatnonzero(~odd)]
    draws = [np.concatenate([rng.choice(part, len(part)) for part in parts]) for _ in range(_SAMPLES)]

    def worth(weights: Weights) -> float:
        score = np.asarray(weights) @ powers
        return float(np.mean([_figures(score[draw], odd[draw]) for draw in draws]))

    beginnings = [(1.0,) * len(names), *(tuple(row) for row in np.eye(len(names)).tolist())]
    weights = max((_ascended(worth, start) for start in beginnings), key=lambda pair: pair[0])[1]
    return dict.fromkeys(SIGNS, 0.0) | dict(zip(names, weights))


def _ascended(worth: Callable[[Weights], float], weights: Weights) -> tuple[float, Weights]:
    """Greatest worth and the weights that no change of a single one betters."""
    best = worth(weights)
    while True:
        tried = {one: worth(one) for one in _changed(weights)}
        better = max(tried, key=lambda one: tried[one])
        if tried[better] <= best:
            return best, weights
        best, weights = tried[better], better


def _changed(weights: Weights) -> list[Weights]:
    """All that differ in one weight, but for those that weigh nothing."""
    found = [(*weights[:place], step, *weights[place + 1 :]) for place in range(len(weights)) for step in STEPS]
    return [one for one in found if one != weights and any(one)]


def _figures(score: Float, odd: NDArray[np.bool_]) -> float:
    return auroc(score, odd) + rank_weighted_score(score, odd)
