"""How well classes and rankings are told, with bootstrap intervals: the same figures for every classifier.

Numpy only, from probabilities or scores and the truth, so that networks and classical methods are judged alike. Rates
before a number of false positives are those of the strong-lens finding challenge (Metcalf et al. 2019, A&A 625, A119).
Ties are resolved against the classifier: objects of equal score pass a threshold together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astroml_plugin.core.errors import InputError

Float = NDArray[np.float64]
Interval = dict[str, float]

BINS = 15
"""Equal-width bins of the expected calibration error."""

RATES = {"tpr_fpr_1e-3": 1e-3, "tpr_fpr_1e-4": 1e-4}
"""Name of a figure of `ranking` -> false-positive rate at which the true-positive rate is quoted."""

BEFORE = {"tpr0": 0, "tpr10": 10}
"""Name of a figure of `ranking` -> number of false positives before which the true-positive rate is quoted."""

_LEAST = 1e-12
_LEVELS = (2.5, 97.5)


def confusion(true: ArrayLike, predicted: ArrayLike, count: int, weight: ArrayLike | None = None) -> NDArray[Any]:
    """How often class `true` was called `predicted`.

    Args:
        true, predicted: (n,) integers below `count`.
        count: number of classes.
        weight: (n,) how often each object counts; once if not given.

    Returns:
        (count, count): row true, column predicted; int64, float64 with weights.
    """
    cells = np.asarray(true, np.int64) * count + np.asarray(predicted, np.int64)
    return np.bincount(cells, weight, minlength=count**2).reshape(count, count)


def classification(
    probabilities: ArrayLike,
    targets: ArrayLike,
    repeats: int = 500,
    seed: int = 0,
    *,
    weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> dict[str, Interval]:
    """Figures of merit of class probabilities.

    accuracy; balanced_accuracy (mean recall of the classes that occur); macro_f1 (mean F1 of the classes that occur or
    are predicted); ece (`BINS` equal-width bins of the probability of the most probable class); brier (sum over
    classes of the squared difference, 0 to 2: Brier 1950); nll (natural logarithm).

    Args:
        probabilities: (n, class), rows that sum to 1.
        targets: (n,) class numbers.
        repeats: bootstrap samples of the objects.
        seed: of the bootstrap.
        weight: (n,) how much each object counts, as where classes are rarer in the survey; alike if not given.
        labels: (n,) the classes that accuracy, balanced accuracy and F1 judge; the most probable ones if not given.

    Returns:
        Name -> value, low and high: the figure of the whole sample and its 95 % percentile interval.

    Raises:
        InputError: no object, probabilities that are not finite, or targets that are no class.
    """
    p, true = _checked(probabilities, targets)
    figures = _class_figures(p, true, p.argmax(1) if labels is None else np.asarray(labels, np.int64))
    count = len(true)
    rng = np.random.default_rng(seed)
    w = np.ones(count) if weight is None else np.asarray(weight, np.float64)
    return _intervals(figures(w), (figures(w * _times(rng, count)) for _ in range(repeats)))


def _times(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """(count,) how often each of `count` objects is in one sample drawn with replacement."""
    return np.bincount(rng.integers(0, count, count), minlength=count)


def _checked(probabilities: ArrayLike, targets: ArrayLike) -> tuple[Float, NDArray[np.int64]]:
    p, true = np.asarray(probabilities, np.float64), np.asarray(targets, np.int64)
    if p.ndim != 2 or len(p) != len(true) or not len(true):
        raise InputError(f"scores need probabilities (n, class) and targets (n,), not {p.shape} and {true.shape}")
    bad = int((~np.isfinite(p).all(1)).sum())
    if bad:
        raise InputError(f"{bad} of {len(p)} objects have probabilities that are not finite: leave them out and say so")
    if true.min() < 0 or true.max() >= p.shape[1]:
        raise InputError(f"targets run from {true.min()} to {true.max()}, and there are {p.shape[1]} classes")
    return p, true


def _class_figures(
    p: Float, true: NDArray[np.int64], labels: NDArray[np.int64]
) -> Callable[[NDArray[Any]], dict[str, float]]:
    """A function that gives the figures for how often each object counts (n,)."""
    classes = p.shape[1]
    confidence = p.max(1)
    right = (p.argmax(1) == true).astype(np.float64)
    cell = true * classes + labels
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gap = right - confidence
    distance = (p**2).sum(1) - 2 * p[np.arange(len(p)), true] + 1
    surprise = -np.log(np.maximum(p[np.arange(len(p)), true], _LEAST))

    def figures(weight: NDArray[Any]) -> dict[str, float]:
        total = weight.sum()
        counts = np.bincount(cell, weight, minlength=classes**2).reshape(classes, classes)
        return {
            "accuracy": float(counts.trace() / total),
            "balanced_accuracy": balanced_accuracy(counts),
            "macro_f1": macro_f1(counts),
            "ece": float(np.abs(np.bincount(bins, weight * gap, minlength=BINS)).sum() / total),
            "brier": float(weight @ distance / total),
            "nll": float(weight @ surprise / total),
        }

    return figures


def balanced_accuracy(counts: ArrayLike) -> float:
    """Mean recall of the classes that occur, from a confusion matrix (true, predicted)."""
    matrix = np.asarray(counts, np.float64)
    seen = matrix.sum(1) > 0
    return float((matrix.diagonal()[seen] / matrix.sum(1)[seen]).mean())


def macro_f1(counts: ArrayLike) -> float:
    """Mean F1 of the classes that occur or are predicted, from a confusion matrix (true, predicted)."""
    matrix = np.asarray(counts, np.float64)
    either = matrix.sum(0) + matrix.sum(1)
    return float((2 * matrix.diagonal()[either > 0] / either[either > 0]).mean())


def multi_label(probabilities: ArrayLike, targets: ArrayLike, repeats: int = 500, seed: int = 0) -> dict[str, Interval]:
    """Figures of merit of probabilities of classes that do not exclude each other.

    accuracy (of all known entries, at a probability of 0.5); macro_f1 (mean over classes of F1 at 0.5); mean_auroc
    (mean over classes); ece (`BINS` equal-width bins of the probability, all known entries); brier (mean squared
    difference per entry, 0 to 1); nll (per entry).

    Args:
        probabilities: (n, class).
        targets: (n, class) 0 to 1 (above 0.5 is positive), NaN where unknown.
        repeats: bootstrap samples of the objects.
        seed: of the bootstrap.

    Returns:
        As `classification`.

    Raises:
        InputError: no known entry, shapes that differ, or probabilities that are not finite.
    """
    p, t = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
    known = ~np.isnan(t)
    if p.shape != t.shape or not known.any() or not np.isfinite(p).all():
        raise InputError(
            f"scores need finite probabilities (n, class) and targets alike, not {p.shape} and {t.shape} with "
            f"{known.sum()} known entries"
        )

    def figures(rows: NDArray[np.int64]) -> dict[str, float]:
        return _multi_label_figures(p[rows], t[rows], known[rows])

    rng = np.random.default_rng(seed)
    count = len(p)
    samples = (figures(rng.integers(0, count, count)) for _ in range(repeats))
    return _intervals(figures(np.arange(count)), samples)


def _multi_label_figures(p: Float, t: Float, known: NDArray[np.bool_]) -> dict[str, float]:
    said, true = p[known], t[known]
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    f1, areas = [], []
    for column in range(p.shape[1]):
        rows = known[:, column]
        wanted, passed = t[rows, column] > 0.5, p[rows, column] >= 0.5
        if wanted.any() or passed.any():
            f1.append(2 * (wanted & passed).sum() / (wanted.sum() + passed.sum()))
        if wanted.any() and not wanted.all():
            areas.append(auroc(p[rows, column], wanted))
    surprise = -(true * np.log(np.maximum(said, _LEAST)) + (1 - true) * np.log(np.maximum(1 - said, _LEAST)))
    return {
        "accuracy": float(((said >= 0.5) == (true > 0.5)).mean()),
        "macro_f1": float(np.mean(f1)) if f1 else float("nan"),
        "mean_auroc": float(np.mean(areas)) if areas else float("nan"),
        "ece": float(np.abs(np.bincount(bins, true - said, BINS)).sum() / len(said)),
        "brier": float(((said - true) ** 2).mean()),
        "nll": float(surprise.mean()),
    }


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive scores higher than a negative, ties counted half: the area below the ROC curve."""
    return _Ranked(score, positive).auroc()


def average_precision(score: ArrayLike, positive: ArrayLike) -> float:
    """Area below the precision-recall curve: the mean precision over positives, at the threshold that each needs."""
    ranked = _Ranked(score, positive)
    passed = np.cumsum(ranked.counts[True])
    return float(ranked.counts[True] @ (passed / (passed + np.cumsum(ranked.counts[False]))) / ranked.positives)


def tpr_before(score: ArrayLike, positive: ArrayLike, false_positives: int) -> float:
    """Highest true-positive rate of a threshold that fewer than `false_positives` negatives pass, or none for 0.

    TPR0 is `tpr_before(score, positive, 0)`, before the first false positive; TPR10 with 10 is before the tenth.
    """
    return _Ranked(score, positive).tpr(max(false_positives - 1, 0))


def tpr_at_fpr(score: ArrayLike, positive: ArrayLike, fpr: float) -> float:
    """Highest true-positive rate of a threshold whose false-positive rate is at most `fpr`."""
    ranked = _Ranked(score, positive)
    return ranked.tpr(_allowed(fpr, ranked.negatives))


def _allowed(fpr: float, negatives: float) -> int:
    return int(np.floor(fpr * negatives + 1e-9))


class _Ranked:
    """Objects sorted by score, highest first, equal scores in one group."""

    def __init__(self, score: ArrayLike, positive: ArrayLike) -> None:
        values, self._positive = np.asarray(score, np.float64), np.asarray(positive, bool)
        bad = int(np.isnan(values).sum())
        if bad or values.shape != self._positive.shape or values.ndim != 1:
            raise InputError(
                f"a ranking needs one score per object, and {bad} of {values.shape} for {self._positive.shape} are NaN"
            )
        self.positives, self.negatives = int(self._positive.sum()), int((~self._positive).sum())
        if not self.positives or not self.negatives:
            raise InputError(
                f"a ranking needs positives and negatives, and has {self.positives} and {self.negatives}: give more"
            )
        found, group = np.unique(-values, return_inverse=True)
        self._groups = len(found)
        self._group = {True: group[self._positive], False: group[~self._positive]}
        self.counts = {kind: np.bincount(where, minlength=self._groups) for kind, where in self._group.items()}

    def resampled(self, rng: np.random.Generator) -> _Ranked:
        """As many positives and as many negatives, each drawn with replacement."""
        other = object.__new__(_Ranked)
        other.positives, other.negatives, other._groups = self.positives, self.negatives, self._groups
        other._group = self._group
        other.counts = {
            kind: np.bincount(where[rng.integers(0, len(where), len(where))], minlength=self._groups)
            for kind, where in self._group.items()
        }
        return other

    def auroc(self) -> float:
        before = np.cumsum(self.counts[True]) - 0.5 * self.counts[True]
        return float(self.counts[False] @ before / (self.positives * self.negatives))

    def tpr(self, allowed: int) -> float:
        passed = int(np.searchsorted(np.cumsum(self.counts[False]), allowed, side="right"))
        return float(self.counts[True][:passed].sum() / self.positives)

    def figures(self) -> dict[str, float]:
        rates = {name: self.tpr(_allowed(fpr, self.negatives)) for name, fpr in RATES.items()}
        return {"auroc": self.auroc(), **rates}


def ranking(score: ArrayLike, positive: ArrayLike, repeats: int = 500, seed: int = 0) -> dict[str, Any]:
    """Figures of merit of a search for rare objects.

    Args:
        score: (n,), higher is more probably positive.
        positive: (n,) bool.
        repeats: bootstrap samples, positives and negatives drawn apart.
        seed: of the bootstrap.

    Returns:
        auroc, tpr_fpr_1e-3 and tpr_fpr_1e-4 -> value, low, high (95 %); tpr0 and tpr10 -> value of this one sample (it
        rests on its highest negatives, so that a bootstrap of it is biased: see `tpr_draws`); positives and negatives
        -> how many. Below 1/fpr negatives a rate at that fpr is the one without any false positive.

    Raises:
        InputError: NaN among the scores, no positive or no negative.
    """
    ranked = _Ranked(score, positive)
    rng = np.random.default_rng(seed)
    found = _intervals(ranked.figures(), (ranked.resampled(rng).figures() for _ in range(repeats)))
    before = {name: {"value": ranked.tpr(max(count - 1, 0))} for name, count in BEFORE.items()}
    return {**found, **before, "positives": ranked.positives, "negatives": ranked.negatives}


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
    ranked = [_Ranked(np.concatenate([positives, np.asarray(draw, np.float64)]), truth) for draw in scores_of_draws]
    found: dict[str, Any] = {}
    for name, count in BEFORE.items():
        values = [one.tpr(max(count - 1, 0)) for one in ranked]
        scatter = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        found[name] = {"mean": float(np.mean(values)), "scatter": scatter, "draws": values}
    return {**found, "positives": len(positives), "negatives": ranked[0].negatives}


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


def _intervals(whole: dict[str, float], samples: Any) -> dict[str, Interval]:
    """Name -> value with the 95 % percentile interval of bootstrap samples (NaN without any)."""
    drawn = list(samples)
    found = {}
    for name, value in whole.items():
        values = np.array([one[name] for one in drawn])
        low, high = np.percentile(values[np.isfinite(values)], _LEVELS) if np.isfinite(values).any() else [np.nan] * 2
        found[name] = {"value": value, "low": float(low), "high": float(high)}
    return found
