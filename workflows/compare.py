"""Networks and other methods on the very same splits: one table with errors, and every prediction behind it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astroml_plugin.training.method_comparison import CompareOptions, compare_methods
from astroml_plugin.training.predictions import PredictionCache, Progress
from astroml_plugin.training.recipe import Recipe
from workflows.recipe import read_recipe


@dataclass(frozen=True)
class CompareResult:
    """Outcome of a comparison."""

    out: str
    """Folder of compare.json, table.md, compare.png and predictions.parquet."""
    objects: int
    """Objects that every method was judged on."""
    folds: int
    """0 for the ordinary test side."""
    table: list[dict[str, Any]]
    """One record per method, best first: figures with value, low and high; seconds of training (mean of the
    folds) and objects per second."""
    text: str
    """The table as Markdown."""
    seconds: float
    """Wall time of this call."""


def compare(
    recipe: str | Path | Recipe,
    *,
    data: str | Sequence[str],
    out: str | Path,
    folds: int = 5,
    methods: Sequence[str] | None = None,
    test: str | Sequence[str] = (),
    bundle: str | Path | Sequence[str | Path] = (),
    device: str | None = None,
    repeats: int = 500,
    progress: Progress | None = None,
) -> CompareResult:
    """Judge the recipe's network and other methods on the same objects, none of which any of them has seen.

    With folds, every object is on the test side once and the predictions are pooled; within the rest of each fold a
    validation part stops the training and sets temperatures. Run again after an interruption, it continues.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`, of a task that has scores.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the results.
        folds: 0 takes the recipe's own split.
        methods: "network" and names of `baselines.classical.METHODS`; default all of them for a task
            of classes (simple_forest, gabor_svm and edges_logistic where there are two), else the network alone.
        test: sources to judge on instead of a test side of the data, all of them at once and without folds.
        bundle: finished bundles to judge as well; one that was trained on these data only with its own split.
        device: torch device of networks; default CUDA where there is one.
        repeats: bootstrap samples.
        progress: told after every piece.

    Raises:
        InputError: recipe, labels, splits or methods that cannot be used, or `out` holds something else.
    """
    started = time.perf_counter()
    given = [bundle] if isinstance(bundle, str | Path) else list(bundle)
    fresh = [test] if isinstance(test, str) else list(test)
    cache = PredictionCache(
        read_recipe(recipe), data, str(out), test=fresh, bundles=[str(one) for one in given], device=device
    )
    asked = CompareOptions(0 if fresh else folds, methods, repeats)
    table = compare_methods(cache, asked, progress)
    return CompareResult(
        cache.out, table.objects, table.folds, table.records, table.text, time.perf_counter() - started
    )
