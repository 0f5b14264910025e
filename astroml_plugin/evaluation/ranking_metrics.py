"""How well a score puts rare objects first, with bootstrap intervals.

Rates before a number of false positives are those of the strong-lens finding challenge (Metcalf et al. 2019, A&A 625,
A119). Ties are resolved against the classifier: objects of equal score pass a threshold together or not at all. That,
and bootstrap samples of counts per group of equal scores, are why these figures are not those of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import bootstrap
from astroml_plugin.evaluation.calibration import widened

RATES = {"tpr_fpr_1e-3": 1e-3, "tpr_fpr_1e-4": 1e-4}
"""Name of a figure of `ranking` -> false-positive rate at which the true-positive rate is quoted."""

BEFORE = {"tpr0": 0, "tpr10": 10}
"""Name of a figure of `ranking` -> number of false positives before which the true-positive rate is quoted."""


class Ranked:
    """Objects sorted by score, highest first, equal scores in one group.

    Args:
        score: (n,), higher is more probably positive.
        positive: (n,) bool.

    Raises:
        InputError: NaN among the scores, no positive or no negative.
    """

    def __init__(self, score: ArrayLike, positive: ArrayLike) -> None:
        values, self.positive = np.asarray(score, np.float64), np.asarray(positive, bool)
        bad = int(np.isnan(values).sum())
        if bad or values.shape != self.positive.shape or values.ndim != 1:
            raise InputError(
                f"a ranking needs one score per object, and {bad} of {values.shape} for {self.positive.shape} are NaN"
            )
        self.positives, self.negatives = int(self.positive.sum()), int((~self.positive).sum())
        if not self.positives or not self.negatives:
            raise InputError(
                f"a ranking needs positives and negatives, and has {self.positives} and {self.negatives}: give more"
            )
        different, self._group = np.unique(-values, return_inverse=True)
        self._groups = len(different)
        self._take(np.flatnonzero(self.positive), np.flatnonzero(~self.positive))

    def _take(self, positive_rows: I64, negative_rows: I64) -> None:
        """Count these objects, per group of equal scores."""
        self._hits = np.bincount(self._group[positive_rows], minlength=self._groups)
        self._misses = np.bincount(self._group[negative_rows], minlength=self._groups)

    @property
    def strata(self) -> tuple[I64, I64]:
        """Rows of the positives and of the negatives, which are resampled apart."""
        return np.flatnonzero(self.positive), np.flatnonzero(~self.positive)

    def resampled(self, rows: I64) -> Ranked:
        """The ranking of drawn rows, those of the positives first."""
        other = object.__new__(Ranked)
        other.__dict__.update(self.__dict__)
        other._take(rows[: self.positives], rows[self.positives :])
        return other

    def auroc(self) -> float:
        """Area below the ROC curve: probability that a positive scores higher than a negative, ties counted half."""
        before = np.cumsum(self._hits) - 0.5 * self._hits
        return float(self._misses @ before / (self.positives * self.negatives))

    def average_precision(self) -> float:
        """Area below the precision-recall curve: mean precision over positives at the threshold that each needs."""
        passed = np.cumsum(self._hits)
        total = np.maximum(passed + np.cumsum(self._misses), 1)  # a bootstrap sample may lack the first group
        return float(self._hits @ (passed / total) / self.positives)

    def tpr(self, false_positives: int) -> float:
        """Highest true-positive rate of a threshold that at most so many negatives pass."""
        passed = int(np.searchsorted(np.cumsum(self._misses), false_positives, side="right"))
        return float(self._hits[:passed].sum() / self.positives)

    def tpr_before(self, false_positives: int) -> float:
        """Highest true-positive rate of a threshold that fewer than so many negatives pass, or none for 0."""
        return self.tpr(max(false_positives - 1, 0))

    def tpr_at_fpr(self, fpr: float) -> float:
        """Highest true-positive rate of a threshold whose false-positive rate is at most `fpr`."""
        return self.tpr(int(np.floor(fpr * self.negatives + 1e-9)))

    def rates(self) -> dict[str, float]:
        """AUROC and the true-positive rate at each of `RATES`."""
        return {"auroc": self.auroc(), **{name: self.tpr_at_fpr(fpr) for name, fpr in RATES.items()}}


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Area below the ROC curve of scores (n,) for positives (n,) bool, ties counted half."""
    return Ranked(score, positive).auroc()


def ranking(score: ArrayLike, positive: ArrayLike, repeats: int = 500, seed: int = 0) -> dict[str, Any]:
    """Figures of merit of a search for rare objects.

    Args:
        score: (n,), higher is more probably positive.
        positive: (n,) bool.
        repeats: bootstrap samples, positives and negatives drawn apart.
        seed: of the bootstrap.

    Returns:
        auroc, tpr_fpr_1e-3 and tpr_fpr_1e-4 -> value, low, high (95 %, at rates of 0 and 1 Wilson's); tpr0 and
        tpr10 -> value of this one sample (it rests on its highest negatives, so that a bootstrap of it is biased: see
        `tpr_draws`); positives and negatives -> how many. Below 1/fpr negatives a rate at that fpr is the one without
        any false positive.

    Raises:
        InputError: NaN among the scores, no positive or no negative.
    """
    ranked = Ranked(score, positive)
    rows = bootstrap.stratified_draws(ranked.strata, repeats, seed)
    rates = bootstrap.intervals(ranked.rates(), (ranked.resampled(drawn).rates() for drawn in rows))
    rates |= {name: widened(rate, ranked.positives) for name, rate in rates.items() if name.startswith("tpr")}
    before = {name: {"value": ranked.tpr_before(count)} for name, count in BEFORE.items()}
    return {**rates, **before, "positives": ranked.positives, "negatives": ranked.negatives}


def tpr_draws(scores_of_draws: Sequence[ArrayLike], positive_scores: ArrayLike) -> dict[str, Any]:
    """TPR0 and TPR10 over independent draws of negatives, as mean and scatter.

    Args:
        scores_of_draws: (negatives,) scores of each draw, all of the same size.
        positive_scores: (positives,) scores of the positives, the same for all draws.

    Returns:
        tpr0 and tpr10 -> mean, scatter (standard deviation of one draw, NaN for a single one) and draws (the values);
        negatives (per draw) and positives.

    Raises:
        InputError: no draw, draws of different sizes, NaN.
    """
    sizes = {len(np.asarray(draw)) for draw in scores_of_draws}
    if len(sizes) != 1:
        raise InputError(f"draws of negatives must be of one size, not {sorted(sizes) or 'none'}")
    positives = np.asarray(positive_scores, np.float64)
    truth = np.repeat([True, False], [len(positives), sizes.pop()])
    ranked = [Ranked(np.concatenate([positives, np.asarray(draw, np.float64)]), truth) for draw in scores_of_draws]
    rates: dict[str, Any] = {}
    for name, count in BEFORE.items():
        values = [draw.tpr_before(count) for draw in ranked]
        scatter = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        rates[name] = {"mean": float(np.mean(values)), "scatter": scatter, "draws": values}
    return {**rates, "positives": len(positives), "negatives": ranked[0].negatives}


def rank_weighted_score(score: ArrayLike, positive: ArrayLike) -> float:
    """Sum over the N highest ranks i of (N + 1 - i) I_i, divided by N (N + 1) / 2, with N the number of positives.

    1 where all positives come first, 0 where none is among the first N; I_i tells whether rank i is a positive, and
    among equal scores the negatives come first.
    """
    values, truth = np.asarray(score, np.float64), np.asarray(positive, bool)
    count = int(truth.sum())
    if not count or np.isnan(values).any():
        raise InputError(f"a rank-weighted score needs positives ({count}) and scores without NaN")
    first = np.lexsort((truth, -values))[:count]
    return float(truth[first] @ np.arange(count, 0, -1) / (count * (count + 1) / 2))


def search_figures(score: F64, positive: ArrayLike, fpr: float = 0.05) -> dict[str, float]:
    """auroc, rws (rank-weighted score) and recall at the false-positive rate `fpr` of one sample."""
    ranked = Ranked(score, positive)
    return {
        "auroc": ranked.auroc(),
        "rws": rank_weighted_score(score, positive),
        "recall": ranked.tpr_at_fpr(fpr),
    }
