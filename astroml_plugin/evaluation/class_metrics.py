"""How well classes are told, with bootstrap intervals: figures from probabilities and the truth, for any classifier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Array, Bool
from astroml_plugin.evaluation.bootstrap import Interval, row_intervals, weighted_intervals
from astroml_plugin.evaluation.calibration import widened
from astroml_plugin.evaluation.ranking_metrics import auroc

BINS = 15
"""Equal-width bins of the expected calibration error."""

_LEAST = 1e-12


def confusion(true: ArrayLike, predicted: ArrayLike, count: int, weight: ArrayLike | None = None) -> Array:
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
        Name -> value, low and high: the figure of the whole sample and its 95 % percentile interval; of an accuracy or
        F1 of 0 or 1 that of Wilson (1927), as there all samples are alike.

    Raises:
        InputError: no object, probabilities that are not finite, or targets that are no class.
    """
    p, true = _checked(probabilities, targets)
    figures = _class_figures(p, true, p.argmax(1) if labels is None else np.asarray(labels, np.int64))
    w = np.ones(len(true)) if weight is None else np.asarray(weight, np.float64)
    found = weighted_intervals(figures, w, repeats, seed)
    per_class = np.bincount(true)
    alike = (per_class > 0).sum() * per_class[
        per_class > 0
    ].min()  # the rarest class limits what is a mean over classes
    counts = {"accuracy": w.sum() ** 2 / (w**2).sum(), "balanced_accuracy": alike, "macro_f1": alike}
    return {**found, **{name: widened(found[name], count) for name, count in counts.items()}}


def _checked(probabilities: ArrayLike, targets: ArrayLike) -> tuple[F64, I64]:
    p, true = np.asarray(probabilities, np.float64), np.asarray(targets, np.int64)
    if p.ndim != 2 or len(p) != len(true) or not len(true):
        raise InputError(f"scores need probabilities (n, class) and targets (n,), not {p.shape} and {true.shape}")
    bad = int((~np.isfinite(p).all(1)).sum())
    if bad:
        raise InputError(f"{bad} of {len(p)} objects have probabilities that are not finite: leave them out and say so")
    if true.min() < 0 or true.max() >= p.shape[1]:
        raise InputError(f"targets run from {true.min()} to {true.max()}, and there are {p.shape[1]} classes")
    return p, true


def _class_figures(p: F64, true: I64, labels: I64) -> Callable[[Array], dict[str, float]]:
    """A function that gives the figures for how often each object counts (n,)."""
    classes = p.shape[1]
    confidence = p.max(1)
    right = (p.argmax(1) == true).astype(np.float64)
    cell = true * classes + labels
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gap = right - confidence
    distance = (p**2).sum(1) - 2 * p[np.arange(len(p)), true] + 1
    surprise = -np.log(np.maximum(p[np.arange(len(p)), true], _LEAST))

    def figures(weight: Array) -> dict[str, float]:
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


def binary_ece(
    probability: ArrayLike, happened: ArrayLike, repeats: int = 500, seed: int = 0, *, weight: ArrayLike | None = None
) -> Interval:
    """Expected calibration error of the probabilities (n,) of one class, in `BINS` equal-width bins."""
    p, true = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)

    def figures(w: F64) -> dict[str, float]:
        return {"ece": float(np.abs(np.bincount(bins, w * (true - p), BINS)).sum() / w.sum())}

    counted = np.ones(len(p)) if weight is None else np.asarray(weight, np.float64)
    return weighted_intervals(figures, counted, repeats, seed)["ece"]


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

    def figures(rows: I64) -> dict[str, float]:
        return _multi_label_figures(p[rows], t[rows], known[rows])

    found = row_intervals(figures, len(p), repeats, seed)
    return {**found, "accuracy": widened(found["accuracy"], len(p))}


def _multi_label_figures(p: F64, t: F64, known: Bool) -> dict[str, float]:
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
