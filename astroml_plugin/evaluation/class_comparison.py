"""Scores that classifiers are compared by, from probabilities alone, so that networks and others are judged alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import class_metrics, ranking_metrics
from astroml_plugin.evaluation.comparison import Comparison, Score, Scorer

PLAIN_SCORES = (
    *(Score(name, rising=True, bounded=True) for name in ("accuracy", "balanced_accuracy", "macro_f1")),
    Score("ece", bounded=True),
    Score("brier"),
    Score("nll"),
)
"""Scores of `class_metrics.classification`, the main one first."""

SCORES = (*PLAIN_SCORES, Score("auroc", rising=True, bounded=True))
"""Scores where one class is searched for, too."""

FIGURES = ("accuracy", "balanced_accuracy", "balanced_accuracy_even", "macro_f1", "ece", "nll")
"""Columns of the table of a comparison; `balanced_accuracy_even` is that of the class that is most probable where all
classes are equally frequent (probabilities divided by the fractions among the objects judged)."""

SEARCH = ("auroc", *ranking_metrics.BEFORE, *ranking_metrics.RATES)
"""Columns beside them where one class is searched for."""


def scorer(score: str, probabilities: F64, true: I64, positive: int | None = None) -> Scorer:
    """A score as a function of rows.

    Args:
        score: one of `SCORES`.
        probabilities: (n, class).
        true: (n,) class numbers.
        positive: the class that is searched for, which auroc needs.
    """
    if score != "auroc":
        return lambda rows: class_metrics.classification(probabilities[rows], true[rows], repeats=0)[score]["value"]
    return lambda rows: ranking_metrics.auroc(probabilities[rows, positive], true[rows] == positive)


def compared(probabilities: F64, true: I64, chosen: I64, positive: int | None, repeats: int) -> Comparison:
    """One classifier's line in a comparison.

    Args:
        probabilities: (n, class).
        true: (n,) class numbers.
        chosen: (n,) numbers of the classes that the objects are called.
        positive: the class that is searched for.
        repeats: bootstrap samples.
    """
    classes = probabilities.shape[1]
    figures: dict[str, Any] = dict(class_metrics.classification(probabilities, true, repeats, labels=chosen))
    even = probabilities / np.maximum(np.bincount(true, minlength=classes), 1)
    even = even / even.sum(1, keepdims=True)
    figures["balanced_accuracy_even"] = class_metrics.classification(even, true, repeats)["balanced_accuracy"]
    shown: tuple[str, ...] = FIGURES
    drawn = ("accuracy", "balanced_accuracy", "ece")
    if positive is not None:
        figures |= ranking_metrics.ranking(probabilities[:, positive], true == positive, repeats)
        shown, drawn = (*shown, *SEARCH), ("auroc", "tpr_fpr_1e-3", "ece")
    figures["confusion"] = class_metrics.confusion(true, chosen, classes).tolist()
    return Comparison(figures, shown, drawn)
