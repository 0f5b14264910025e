"""How large must the training set be: nested subsets, the same test side, a curve through the errors, an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.storage import finite
from astroml_plugin.evaluation import class_metrics, ranking_metrics
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.splits import SplitSettings, split_record
from workflows.pieces import NETWORK, Float, Piece, Pieces, Progress

USUAL_METHODS = (NETWORK, "random_forest", "svm_both")
"""Methods that are drawn unless told otherwise."""

_RATES = np.geomspace(0.05, 2.0, 150)
"""Exponents c of a + b N^-c that are tried."""
_FAR = 10.0
"""Times the largest subset, beyond which an answer is called an extrapolation."""
_LEAST_REACHED = 0.5
"""Share of the bootstrap samples that must reach a target for a number to be given."""


@dataclass(frozen=True)
class Curve:
    """error = floor + scale * N ** -rate, and the same of every bootstrap sample."""

    floor: float
    """Error that more labels of this kind do not remove."""
    scale: float
    """Of the part that falls."""
    rate: float
    """How fast it falls."""
    samples: Float
    """(samples, 3) floor, scale, rate."""

    def at(self, sizes: Float) -> Float:
        """(k,) errors at sizes (k,)."""
        return self.floor + self.scale * np.asarray(sizes, np.float64) ** -self.rate

    def band(self, sizes: Float) -> Float:
        """(2, k) 2.5 and 97.5 % of the errors at sizes (k,)."""
        floor, scale, rate = self.samples.T[:, :, None]
        return np.percentile(floor + scale * np.asarray(sizes, np.float64) ** -rate, (2.5, 97.5), axis=0)

    def needed(self, error: float) -> tuple[float, float, float]:
        """Training objects at which the error is reached: of the curve, and 2.5 and 97.5 % of the samples; infinite
        where it never is."""
        low, high = np.percentile(_needed(self.samples, error), (2.5, 97.5), method="nearest")
        return float(_needed(np.array([[self.floor, self.scale, self.rate]]), error)[0]), float(low), float(high)


def _needed(curves: Float, error: float) -> Float:
    floor, scale, rate = curves.T
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = (scale / np.maximum(error - floor, 0)) ** (1 / rate)
    return np.where(error > floor, found, np.inf)


@dataclass(frozen=True)
class LearningCurveResult:
    """What the learning curve says."""

    out: str
    """Folder of learning_curve.json, learning_curve.png and the pieces."""
    metric: str
    """What is drawn."""
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
    methods: Sequence[str] = USUAL_METHODS,
    metric: str = "accuracy",
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
        recipe: a shipped name, the path of a TOML file, or a `Recipe`, of a task that classifies.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the results.
        sizes: training objects of each subset; default six, each twice the one before, up to all, without those that
            lack a class.
        methods: "network" and names of `baselines.classical.METHODS`.
        metric: accuracy, balanced_accuracy, macro_f1, ece, brier or nll; auroc where the recipe names a positive class.
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
    pieces = Pieces(recipe, data, out, test=[test] if isinstance(test, str) else list(test), device=device)
    pieces.check(methods)
    split = pieces.recipe.split
    plan = pieces.plan(replace(split, limit=0))
    judge = _Judge(metric, plan.task.settings)
    _refuse_target(target, judge)
    subsets = {
        size: [_subset(split, size, seed) for seed in range(_seeds(seeds))]
        for size in _sizes(sizes, len(plan.rows["train"]), len(plan.task.settings.classes))
    }
    chosen = _with_all_classes(pieces, subsets, given=sizes is not None)
    work = [(method, size, seed) for size in chosen for seed in range(seeds) for method in methods]
    found: dict[tuple[str, int], list[Piece]] = {}
    for number, (method, size, seed) in enumerate(work):
        piece = pieces.get(method, subsets[size][seed], f"n{size}_s{seed}", seed)
        found.setdefault((method, size), []).append(piece)
        if progress is not None:
            progress("trained", number + 1, len(work), f"{method} on {size}")
    drawn = {method: _drawn(found, method, chosen, judge, repeats) for method in methods}
    curves = {method: _fitted(chosen, *drawn[method]) for method in methods}
    points = [point for method in methods for point in _points(method, chosen, *drawn[method], judge, seeds)]
    goal = _goal(target, judge, points)
    extra = len(plan.rows["validation"]) / len(plan.rows["train"])
    span = (chosen[0], chosen[-1])
    answers = {method: answer(method, curves[method], judge, goal, span, extra) for method in methods}
    record = {
        "task": pieces.recipe.task,
        "settings": pieces.recipe.settings,
        "split": split_record(split),
        "data": {"digest": pieces.data.digest, "ids": [source.id for source in pieces.data.sources]},
        "test_objects": len(found[methods[0], chosen[0]][0].rows),
        "metric": metric,
        "target": goal,
        "points": points,
        "curves": {method: _plain(curve) for method, curve in curves.items()},
        "answers": answers,
    }
    write_figure(storage.join(pieces.out, "learning_curve.png"), _figure(points, curves, judge, goal, chosen))
    storage.write_json(storage.join(pieces.out, "learning_curve.json"), finite(record))
    return LearningCurveResult(pieces.out, metric, points, answers, time.perf_counter() - started)


def _seeds(count: int) -> int:
    if count < 1:
        raise InputError(f"a learning curve needs one seed or more, not {count}")
    return count


def _sizes(sizes: Sequence[int] | None, most: int, classes: int) -> list[int]:
    """The subsets in rising order."""
    if sizes is None:
        halves = [most // 2**step for step in range(5, -1, -1)]
        return [size for size in halves if size >= 10 * classes] or [most]
    chosen = sorted(set(sizes))
    if not chosen or chosen[0] < 2 * classes or chosen[-1] > most:
        raise InputError(
            f"sizes must lie between {2 * classes} and the {most} training objects of the split, not {list(sizes)}"
        )
    return chosen


def _subset(split: SplitSettings, size: int, seed: int) -> SplitSettings:
    return replace(split, limit=size, limit_seed=split.limit_seed + seed)


def _with_all_classes(pieces: Pieces, subsets: dict[int, list[SplitSettings]], *, given: bool) -> list[int]:
    """The sizes whose subsets all have every class for training and validation.

    Raises:
        InputError: a size that was asked for has not, or none of the usual ones has.
    """
    chosen = list(subsets)
    while chosen:
        try:
            for part in subsets[chosen[0]]:  # subsets are nested: the smallest decides
                pieces.plan(part)
            return chosen
        except InputError as error:
            if given or len(chosen) == 1:
                raise InputError(f"a subset of {chosen[0]} training objects cannot be used: {error}") from None
            chosen = chosen[1:]
    return chosen


class _Judge:
    """One metric, and its error: what more labels should lower."""

    def __init__(self, metric: str, settings: Any) -> None:
        self.metric, self.positive = metric, getattr(settings, "positive", "")
        self.classes = list(settings.classes)
        known = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "brier", "nll", "auroc")
        if metric not in known:
            raise InputError(f"no metric {metric!r} for a learning curve: there are {', '.join(known)}")
        if metric == "auroc" and self.positive not in self.classes:
            raise InputError("auroc needs the positive class: set `positive` in [settings] of the recipe")
        self.rising = metric in ("accuracy", "balanced_accuracy", "macro_f1", "auroc")

    def error(self, piece: Piece, chosen: NDArray[np.int64]) -> float:
        """Of some objects of a piece, by their places."""
        probabilities, truth = piece.probabilities[chosen], piece.truth[chosen]
        if self.metric == "auroc":
            place = self.classes.index(self.positive)
            return 1 - ranking_metrics.auroc(probabilities[:, place], truth == place)
        return self.turned(class_metrics.classification(probabilities, truth, repeats=0)[self.metric]["value"])

    def turned(self, value: float) -> float:
        """From metric to error, and back."""
        return 1 - value if self.rising else value


def _drawn(
    found: dict[tuple[str, int], list[Piece]], method: str, sizes: Sequence[int], judge: _Judge, repeats: int
) -> tuple[Float, Float]:
    """Errors (size,), mean over seeds, and of bootstrap samples (samples, size): objects alike at all sizes."""
    rng = np.random.default_rng(0)
    first = found[method, sizes[0]][0]
    count, seeds = len(first.rows), len(found[method, sizes[0]])
    everything = np.arange(count)
    means = np.array([np.mean([judge.error(piece, everything) for piece in found[method, size]]) for size in sizes])
    samples = np.empty((repeats, len(sizes)))
    for row in samples:
        chosen = rng.integers(0, count, count)
        for place, size in enumerate(sizes):
            drawn = rng.integers(0, seeds, seeds)
            row[place] = np.mean([judge.error(found[method, size][seed], chosen) for seed in drawn])
    return means, samples


def _points(
    method: str, sizes: Sequence[int], means: Float, samples: Float, judge: _Judge, seeds: int
) -> list[dict[str, Any]]:
    ends = np.percentile(samples, (2.5, 97.5), axis=0)
    points = []
    for size, mean, low, high in zip(sizes, means, *ends):
        low, high = sorted((judge.turned(low), judge.turned(high)))
        points.append(
            {"method": method, "size": size, "value": judge.turned(mean), "low": low, "high": high, "seeds": seeds}
        )
    return points


def _fitted(sizes: Sequence[int], means: Float, samples: Float) -> Curve | None:
    """The curve through the mean errors and those of the samples; None for fewer than three sizes."""
    if len(sizes) < 3:
        return None
    spread = np.maximum(samples.std(0), 1e-4)
    fits = fit_power_laws(np.asarray(sizes, np.float64), np.vstack([means, samples]), spread)
    floor, scale, rate = (float(value) for value in fits[0])
    return Curve(floor, scale, rate, fits[1:])


def fit_power_laws(sizes: Float, errors: Float, spread: Float) -> Float:
    """Least squares of a + b N^-c with a, b >= 0 and c among `_RATES`, for many curves at once.

    Args:
        sizes: (k,) N.
        errors: (curves, k).
        spread: (k,) standard deviations.

    Returns:
        (curves, 3): a, b, c.
    """
    weight = 1 / spread**2
    best, kept = np.full(len(errors), np.inf), np.zeros((len(errors), 3))
    for rate in _RATES:
        fall = sizes**-rate
        one, first, second = weight.sum(), weight @ fall, weight @ fall**2
        level, product = errors @ weight, errors @ (weight * fall)
        scale = np.maximum((one * product - first * level) / (one * second - first**2), 0)
        floor = (level - scale * first) / one
        below = floor < 0
        scale, floor = np.where(below, np.maximum(product / second, 0), scale), np.where(below, 0, floor)
        misfit = ((errors - floor[:, None] - scale[:, None] * fall) ** 2) @ weight
        better = misfit < best
        best = np.where(better, misfit, best)
        kept[better] = np.stack([floor, scale, np.full(len(errors), rate)], axis=1)[better]
    return kept


def _refuse_target(target: float | None, judge: _Judge) -> None:
    if target is None:
        return
    if judge.metric in ("brier", "nll") and target <= 0:
        raise InputError(f"target ({target}) of {judge.metric} must be above 0")
    if judge.metric not in ("brier", "nll") and not 0 < target < 1:
        raise InputError(f"target ({target}) of {judge.metric} must lie between 0 and 1")


def _goal(target: float | None, judge: _Judge, points: Sequence[dict[str, Any]]) -> float:
    if target is not None:
        return target
    best = min(judge.turned(point["value"]) for point in points)
    return judge.turned(best / 2)


def answer(method: str, curve: Curve | None, judge: _Judge, goal: float, span: tuple[int, int], extra: float) -> str:
    """The sentence that says how many more labels a target needs.

    Args:
        method: its name.
        curve: fitted to its errors; None where there are too few sizes.
        judge: the metric.
        goal: value of the metric to reach.
        span: training objects of the smallest and of the largest subset.
        extra: validation objects that come with each of them.
    """
    start = f"{method}: to reach {judge.metric.replace('_', ' ')} {goal:.3g}"
    least, most = span
    if judge.turned(goal) <= 0:
        return f"{start} cannot be asked: the test objects show no error; judge on more of them or give a target."
    if curve is None:
        return f"{start} cannot be answered from fewer than three sizes."
    error = judge.turned(goal)
    best, low, high = curve.needed(error)
    reached = float(np.isfinite(_needed(curve.samples, error)).mean())
    if not np.isfinite(best) or reached < _LEAST_REACHED:
        floor = judge.turned(curve.floor)
        return (
            f"{start} more labels of this kind are not enough: the curve levels off at {floor:.3f} "
            f"({reached:.0%} of the bootstrap samples ever reach it); improve the method, the images or the labels."
        )
    above = "no upper bound" if not np.isfinite(high) else _count(high)
    if best <= least:
        return f"{start} the smallest subset, {least:,} training objects, is enough."
    if best <= most:
        return f"{start} about {_count(best)} training objects are enough (95 %: {_count(low)} to {above})."
    more = (best - most) * (1 + extra)
    told = f"{_count(max(0.0, low - most) * (1 + extra))} to "
    told += above if not np.isfinite(high) else _count((high - most) * (1 + extra))
    far = f" That is beyond {_FAR:.0f} times these data: an extrapolation." if best > _FAR * most else ""
    return (
        f"{start} you need about {_count(more)} more labels (95 %: {told}) beside the {_count(most * (1 + extra))} "
        f"of training and validation.{far}"
    )


def _count(value: float) -> str:
    """Two digits are all that such a number has."""
    if value > 1e9:
        return f"{value:.1e}"
    digits = max(0, int(np.log10(max(value, 1))) - 1)
    return f"{round(value / 10**digits) * 10**digits:,.0f}"


def _plain(curve: Curve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    low, high = np.percentile(curve.samples, (2.5, 97.5), axis=0)
    names = ("floor", "scale", "rate")
    values = (curve.floor, curve.scale, curve.rate)
    return {
        name: {"value": value, "low": float(a), "high": float(b)} for name, value, a, b in zip(names, values, low, high)
    }


_COLOURS = ("#c0392b", "#1b4f72", "#7d8b3a", "#6c3483", "#e59866", "#117a65", "#797d7f")


def _figure(
    points: Sequence[dict[str, Any]], curves: dict[str, Curve | None], judge: _Judge, goal: float, sizes: Sequence[int]
) -> Any:
    """The metric against the number of training objects, with fitted curves, their bands and the target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    panel = figure.subplots()
    reach = np.geomspace(sizes[0], sizes[-1] * (4 if len(sizes) > 1 else 1.01), 100)
    for number, (method, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        own = [point for point in points if point["method"] == method]
        x, y = [point["size"] for point in own], np.array([point["value"] for point in own])
        ends = [y - [point["low"] for point in own], [point["high"] for point in own] - y]
        panel.errorbar(x, y, np.maximum(ends, 0), fmt="o", color=colour, markersize=4, capsize=2, label=method)
        if curve is None:
            continue
        low, high = (np.array([judge.turned(value) for value in side]) for side in curve.band(reach))
        panel.fill_between(reach, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.plot(reach, [judge.turned(value) for value in curve.at(reach)], color=colour, linewidth=1)
    panel.axhline(goal, color="k", linestyle=":", linewidth=1, label=f"target {goal:.3g}")
    panel.axvline(sizes[-1], color="k", linewidth=0.5, alpha=0.5)
    panel.set(xscale="log", xlabel="training objects", ylabel=judge.metric.replace("_", " "))
    panel.legend(fontsize=8)
    return figure
