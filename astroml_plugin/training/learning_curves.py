"""Methods trained on growing nested subsets and judged on the same test side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result
from astroml_plugin.core.storage import finite
from astroml_plugin.core.typing import F64
from astroml_plugin.evaluation import learning_curve
from astroml_plugin.evaluation.bootstrap import ends
from astroml_plugin.evaluation.comparison import Score, Scorer, chosen_score
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.training.method_prediction import MethodPrediction, on_common_rows
from astroml_plugin.training.plan import Plan
from astroml_plugin.training.predictions import NETWORK, PredictionCache
from astroml_plugin.training.splits import SplitSettings, split_record

CLASS_METHODS = (NETWORK, "random_forest", "svm_both")
"""Methods that are drawn unless told otherwise, of a task of classes; of others the network alone."""


@dataclass(frozen=True)
class CurveOptions:
    """Choices of a learning curve."""

    sizes: tuple[int, ...] | None = None
    """Training objects of each subset; default: six, each twice the one before, up to all, without those that lack a
    class."""
    methods: tuple[str, ...] | None = None
    """"network" and names of `baselines.classical.METHODS`, or of `baselines.regressors.METHODS` where numbers are
    measured; default `CLASS_METHODS`, or the network alone where there are no classes."""
    metric: str | None = None
    """Score to draw. Classes: accuracy, balanced_accuracy, macro_f1, ece, brier, nll, auroc (where the recipe names a
    positive class). Measured numbers: rmse, nmad, outlier_fraction, of several columns with the column's name, as in
    rmse_size. default: the main one."""
    target: float | None = None
    """Value of the metric to reach; default: halfway from the best point to perfection."""
    seeds: int = 3
    """Subsets (and initial weights) of each size."""
    test: Place | tuple[Place, ...] = ()
    """Sources to judge on instead of the test side of the data."""
    device: str | None = None
    """Torch device of networks; default: CUDA where there is one."""
    repeats: int = 200
    """Bootstrap samples."""


@dataclass(frozen=True, repr=False)
class LearningCurveResult(Result):
    """Outcome of a learning curve."""

    out: str
    """Folder of learning_curve.json, learning_curve.png and the pieces."""
    metric: str
    """The score that is drawn."""
    points: list[dict[str, Any]]
    """method, size, value (mean over seeds), low, high (95 %), seeds."""
    answers: dict[str, str]
    """Method -> the sentence that answers how many labels the target needs."""
    seconds: float = 0.0
    """Wall time of the call."""


def draw_learning_curves(
    cache: PredictionCache, options: CurveOptions, progress: Callable[..., None] | None = None
) -> LearningCurveResult:
    """Train, judge, fit, and write learning_curve.json and learning_curve.png into the folder of the cache.

    Raises:
        InputError: labels, sizes, methods, metric or target that cannot be used.
    """
    if options.seeds < 1:
        raise InputError(f"a learning curve needs one seed or more, not {options.seeds}")
    split = cache.recipe.split
    plan = cache.plan(replace(split, limit=0))
    usual = CLASS_METHODS if plan.task.classes else (NETWORK,)
    methods = usual if options.methods is None else options.methods
    cache.check(methods, plan.task)
    score = chosen_score(plan.task.scores(plan.table(plan.rows["train"])), options.metric)
    learning_curve.refuse_target(options.target, score)
    least = max(2, len(plan.task.classes))
    subsets = {
        size: [replace(split, limit=size, limit_seed=split.limit_seed + seed) for seed in range(options.seeds)]
        for size in _sizes(options.sizes, len(plan.rows["train"]), least)
    }
    sizes = _usable_sizes(cache, subsets, given=options.sizes is not None)
    made = _predictions(cache, methods, {size: subsets[size] for size in sizes}, progress)
    drawn = {method: _errors(plan, made, method, sizes, score, options.repeats) for method in methods}
    curves = {method: learning_curve.fitted_curve(sizes, *drawn[method]) for method in methods}
    points = [point for method in methods for point in _points(method, sizes, *drawn[method], score, options.seeds)]
    goal = learning_curve.goal_of(options.target, score, points)
    extra = len(plan.rows["validation"]) / len(plan.rows["train"])
    span = (sizes[0], sizes[-1])
    answers = {method: learning_curve.answer(method, curves[method], score, goal, span, extra) for method in methods}
    record = {
        "task": cache.recipe.task,
        "settings": cache.recipe.settings,
        "split": split_record(split),
        "data": {"digest": cache.data.digest, "ids": [source.id for source in cache.data.sources]},
        "test_objects": len(made[methods[0], sizes[0]][0].rows),
        "metric": score.name,
        "target": goal,
        "points": points,
        "curves": {method: learning_curve.summary(curve) for method, curve in curves.items()},
        "answers": answers,
    }
    drawing = learning_curve.figure(points, curves, score, goal, sizes)
    write_figure(storage.join(cache.out, "learning_curve.png"), drawing)
    storage.write_json(storage.join(cache.out, "learning_curve.json"), finite(record))
    return LearningCurveResult(cache.out, score.name, points, answers)


def _sizes(sizes: Sequence[int] | None, most: int, least: int) -> list[int]:
    """The subsets in rising order; `least` objects cannot be divided further."""
    if sizes is None:
        halves = [most // 2**step for step in range(5, -1, -1)]
        return [size for size in halves if size >= 10 * least] or [most]
    chosen = sorted(set(sizes))
    if not chosen or chosen[0] < 2 * least or chosen[-1] > most:
        raise InputError(
            f"sizes must lie between {2 * least} and the {most} training objects of the split, not {list(sizes)}"
        )
    return chosen


def _usable_sizes(cache: PredictionCache, subsets: dict[int, list[SplitSettings]], *, given: bool) -> list[int]:
    """The sizes whose subsets can all be trained on: every class for training and validation.

    Raises:
        InputError: a size that was asked for cannot, or none of the usual ones can.
    """
    chosen = list(subsets)
    while chosen:
        try:
            for part in subsets[chosen[0]]:  # subsets are nested: the smallest decides
                cache.plan(part)
            return chosen
        except InputError as error:
            if given or len(chosen) == 1:
                raise InputError(f"a subset of {chosen[0]} training objects cannot be used: {error}") from None
            chosen = chosen[1:]
    return chosen


Predictions = dict[tuple[str, int], list[MethodPrediction]]
"""Method and size -> its predictions, one per seed."""


def _predictions(
    cache: PredictionCache,
    methods: Sequence[str],
    subsets: dict[int, list[SplitSettings]],
    progress: Callable[..., None] | None,
) -> Predictions:
    work = [
        (method, size, seed, part)
        for method in methods
        for size, parts in subsets.items()
        for seed, part in enumerate(parts)
    ]
    made: Predictions = {}
    for number, (method, size, seed, part) in enumerate(work):
        made.setdefault((method, size), []).append(cache.get(method, part, f"n{size}_s{seed}", seed))
        if progress is not None:
            progress("trained", number + 1, len(work), f"{method} on {size}")
    return made


def _errors(
    plan: Plan, made: Predictions, method: str, sizes: Sequence[int], score: Score, repeats: int
) -> tuple[F64, F64]:
    """Errors (size,), mean over seeds, and of bootstrap samples (samples, size): objects alike at all sizes."""
    rng = np.random.default_rng(0)
    judged = on_common_rows([made_ for size in sizes for made_ in made[method, size]])
    seeds, count = len(judged) // len(sizes), len(judged[0].rows)
    each: list[Scorer] = [plan.task.scorer(score.name, made_.columns, made_.truth) for made_ in judged]
    scorers = {size: each[place * seeds : (place + 1) * seeds] for place, size in enumerate(sizes)}
    everything = np.arange(count)
    means = np.array([np.mean([score.error(scorer(everything)) for scorer in scorers[size]]) for size in sizes])
    samples = np.empty((repeats, len(sizes)))
    for row in samples:
        rows = rng.integers(0, count, count)
        for place, size in enumerate(sizes):
            drawn = rng.integers(0, seeds, seeds)
            row[place] = np.mean([score.error(scorers[size][seed](rows)) for seed in drawn])
    return means, samples


def _points(
    method: str, sizes: Sequence[int], means: F64, samples: F64, score: Score, seeds: int
) -> list[dict[str, Any]]:
    points = []
    for size, mean, low, high in zip(sizes, means, *ends(samples)):
        low, high = sorted((score.error(low), score.error(high)))
        points.append(
            {"method": method, "size": size, "value": score.error(mean), "low": low, "high": high, "seeds": seeds}
        )
    return points
