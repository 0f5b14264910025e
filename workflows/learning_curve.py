"""How large must the training set be: nested subsets, the same test side, a curve through the errors, an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astroml_plugin.training.learning_curves import CurveOptions, draw_learning_curves
from astroml_plugin.training.predictions import PredictionCache, Progress
from astroml_plugin.training.recipe import Recipe
from workflows.recipe import read_recipe


@dataclass(frozen=True)
class LearningCurveResult:
    """Outcome of a learning curve."""

    out: str
    """Folder of learning_curve.json, learning_curve.png and the pieces."""
    metric: str
    """The score that is drawn."""
    points: list[dict[str, Any]]
    """method, size, value (mean over seeds), low, high (95 %), seeds."""
    answers: dict[str, str]
    """Method -> the sentence that answers the question."""
    seconds: float
    """Wall time of this call."""


def learning_curve(
    recipe: str | Path | Recipe,
    *,
    data: str | Sequence[str],
    out: str | Path,
    sizes: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    metric: str | None = None,
    target: float | None = None,
    seeds: int = 3,
    test: str | Sequence[str] = (),
    device: str | None = None,
    repeats: int = 200,
    progress: Progress | None = None,
) -> LearningCurveResult:
    """Train on growing nested subsets, judge all on the same test side, and say how many labels a target needs.

    Each subset of the training side takes its share of the validation side with it, since labels for that have to be
    made too. A curve a + b N^-c is fitted to the errors; its uncertainty comes from resampling test objects and seeds
    together. Run again after an interruption, it continues.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`, of a task that has scores.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the results.
        sizes: training objects of each subset; default six, each twice the one before, up to all, without those that
            lack a class.
        methods: "network" and, for classes, names of `baselines.classical.METHODS`; default network, random_forest and
            svm_both for classes, else the network alone.
        metric: of classes accuracy (the default), balanced_accuracy, macro_f1, ece, brier or nll, auroc where the
            recipe names a positive class; of measured numbers rmse (the default), nmad or
            outlier_fraction, of several columns with the column's name, as in rmse_size.
        target: value of the metric to reach; default halfway from the best point to perfection.
        seeds: subsets (and initial weights) of each size.
        test: sources to judge on instead of the test side of the data.
        device: torch device of networks; default CUDA where there is one.
        repeats: bootstrap samples.
        progress: told after every piece.

    Raises:
        InputError: recipe, labels, sizes or methods that cannot be used, or `out` holds something else.
    """
    started = time.perf_counter()
    fresh = [test] if isinstance(test, str) else list(test)
    cache = PredictionCache(read_recipe(recipe), data, str(out), test=fresh, device=device)
    asked = CurveOptions(sizes, methods, metric, target, seeds, repeats)
    found = draw_learning_curves(cache, asked, progress)
    return LearningCurveResult(cache.out, found.score.name, found.points, found.answers, time.perf_counter() - started)
