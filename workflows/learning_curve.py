"""How large must the training set be: nested subsets, the same test side, a curve through the errors, an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import texts, with_changes
from astroml_plugin.training.learning_curves import CurveOptions, LearningCurveResult, draw_learning_curves
from astroml_plugin.training.predictions import PredictionCache, Progress
from astroml_plugin.training.recipe import Recipe
from workflows.notebook import shows_progress
from workflows.recipe import read_recipe

__all__ = ["CurveOptions", "LearningCurveResult", "learning_curve"]


@shows_progress()
def learning_curve(
    recipe: Place | Recipe,
    *,
    data: Place | Sequence[Place],
    out: Place,
    options: CurveOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> LearningCurveResult:
    """Train on growing nested subsets, judge all on the same test side, and say how many labels a target needs.

    Each subset of the training side takes its share of the validation side with it, since labels for that have to be
    made too. A curve a + b N^-c is fitted to the errors; its uncertainty comes from resampling test objects and seeds
    together. Run again after an interruption, it continues.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`, of a task that has scores.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the results.
        options: sizes, methods, metric, target, seeds, test sources, device, bootstrap.
        progress: told after every piece.
        changes: single fields of the options by name, for example `seeds=1`.

    Raises:
        InputError: an unknown option, recipe, labels, sizes or methods that cannot be used, or `out` holds something
            else.
    """
    started = time.perf_counter()
    chosen = with_changes(CurveOptions, options, changes, "the options of learning-curve")
    cache = PredictionCache(
        read_recipe(recipe), texts(data), text_of(out), test=texts(chosen.test), device=chosen.device
    )
    return replace(draw_learning_curves(cache, chosen, progress), seconds=time.perf_counter() - started)
