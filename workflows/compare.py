"""Networks and other methods on the very same splits: one table with errors, and every prediction behind it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import texts, with_changes
from astroml_plugin.training.method_comparison import CompareOptions, CompareResult, compare_methods
from astroml_plugin.training.predictions import PredictionCache, Progress
from astroml_plugin.training.recipe import Recipe
from workflows.notebook import shows_progress
from workflows.recipe import read_recipe

__all__ = ["CompareOptions", "CompareResult", "compare"]


@shows_progress()
def compare(
    recipe: Place | Recipe,
    *,
    data: Place | Sequence[Place],
    out: Place,
    options: CompareOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> CompareResult:
    """Judge the recipe's network and other methods on the same objects, none of which any of them has seen.

    With folds, every object is on the test side once and the predictions are pooled; within the rest of each fold a
    validation part stops the training and sets temperatures. Run again after an interruption, it continues.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`, of a task that has scores.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the results.
        options: folds, methods, test sources, bundles, device, bootstrap.
        progress: told after every piece.
        changes: single fields of the options by name, for example `folds=0`.

    Raises:
        InputError: an unknown option, recipe, labels, splits or methods that cannot be used, or `out` holds something
            else.
    """
    started = time.perf_counter()
    chosen = with_changes(CompareOptions, options, changes, "the options of compare")
    cache = PredictionCache(
        read_recipe(recipe),
        texts(data),
        text_of(out),
        test=texts(chosen.test),
        bundles=texts(chosen.bundle),
        device=chosen.device,
    )
    result = compare_methods(cache, replace(chosen, folds=0) if chosen.test else chosen, progress)
    return replace(result, seconds=time.perf_counter() - started)
