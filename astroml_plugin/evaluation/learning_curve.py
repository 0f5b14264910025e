"""Errors that fall with the training set: a power law through them, and how many labels a target needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.evaluation.bootstrap import ends
from astroml_plugin.evaluation.comparison import Score

_RATES = np.geomspace(0.05, 2.0, 150)
"""Exponents c of a + b N^-c that are tried."""
_FAR = 10.0
"""Times the largest subset, beyond which an answer is called an extrapolation."""
_LEAST_REACHED = 0.5
"""Share of the bootstrap samples that must reach a target for a number to be given."""


@dataclass(frozen=True)
class LearningCurve:
    """Power law error = floor + scale * N ** -rate, and that of every bootstrap sample."""

    floor: float
    """Error that more labels of this kind do not remove."""
    scale: float
    """Size of the part that falls."""
    rate: float
    """Exponent of the fall."""
    samples: F64
    """(samples, 3) floor, scale, rate."""

    def at(self, sizes: F64) -> F64:
        """(k,) errors at sizes (k,)."""
        return self.floor + self.scale * np.asarray(sizes, np.float64) ** -self.rate

    def band(self, sizes: F64) -> F64:
        """(2, k) 2.5 and 97.5 % of the errors at sizes (k,)."""
        floor, scale, rate = self.samples.T[:, :, None]
        return np.stack(ends(floor + scale * np.asarray(sizes, np.float64) ** -rate))

    def needed(self, error: float) -> tuple[float, float, float]:
        """Training objects at which the error is reached: of the curve, and 2.5 and 97.5 % of the samples; infinite
        where it never is."""
        low, high = np.percentile(_needed(self.samples, error), (2.5, 97.5), method="nearest")
        return float(_needed(np.array([[self.floor, self.scale, self.rate]]), error)[0]), float(low), float(high)


def _needed(curves: F64, error: float) -> F64:
    floor, scale, rate = curves.T
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        found = (scale / np.maximum(error - floor, 0)) ** (1 / rate)
    return np.where(error > floor, found, np.inf)


def fitted_curve(sizes: Sequence[int], means: F64, samples: F64) -> LearningCurve | None:
    """The curve through the mean errors and those of the samples; None for fewer than three sizes."""
    if len(sizes) < 3:
        return None
    spread = np.maximum(samples.std(0), 1e-4)
    fits = fit_power_laws(np.asarray(sizes, np.float64), np.vstack([means, samples]), spread)
    floor, scale, rate = (float(value) for value in fits[0])
    return LearningCurve(floor, scale, rate, fits[1:])


def fit_power_laws(sizes: F64, errors: F64, spread: F64) -> F64:
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


def refuse_target(target: float | None, score: Score) -> None:
    """Raise InputError where a score cannot have a value to be reached."""
    if target is None:
        return
    if not score.bounded and target <= 0:
        raise InputError(f"target ({target}) of {score.name} must be above 0")
    if score.bounded and not 0 < target < 1:
        raise InputError(f"target ({target}) of {score.name} must lie between 0 and 1")


def goal_of(target: float | None, score: Score, points: Sequence[dict[str, Any]]) -> float:
    """The value to reach: the target, else half of the best point's error."""
    if target is not None:
        return target
    best = min(score.error(point["value"]) for point in points)
    return float(score.error(best / 2))


def answer(
    method: str, curve: LearningCurve | None, score: Score, goal: float, span: tuple[int, int], extra: float
) -> str:
    """The sentence that says how many more labels a target needs.

    Args:
        method: its name.
        curve: fitted to its errors; None where there are too few sizes.
        score: the metric.
        goal: value of the metric to reach.
        span: training objects of the smallest and of the largest subset.
        extra: validation objects that come with each of them.
    """
    start = f"{method}: to reach {score.name.replace('_', ' ')} {goal:.3g}"
    least, most = span
    if score.error(goal) <= 0:
        return f"{start} cannot be asked: the test objects show no error; judge on more of them or give a target."
    if curve is None:
        return f"{start} cannot be answered from fewer than three sizes."
    error = score.error(goal)
    best, low, high = curve.needed(error)
    reached = float(np.isfinite(_needed(curve.samples, error)).mean())
    if not np.isfinite(best) or reached < _LEAST_REACHED:
        floor = score.error(curve.floor)
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


def summary(curve: LearningCurve | None) -> dict[str, Any] | None:
    """Plain JSON of a curve: floor, scale and rate, each value, low and high (95 %); None of None."""
    if curve is None:
        return None
    low, high = ends(curve.samples)
    names = ("floor", "scale", "rate")
    values = (curve.floor, curve.scale, curve.rate)
    return {
        name: {"value": value, "low": float(a), "high": float(b)} for name, value, a, b in zip(names, values, low, high)
    }


_COLOURS = ("#c0392b", "#1b4f72", "#7d8b3a", "#6c3483", "#e59866", "#117a65", "#797d7f")


def figure(
    points: Sequence[dict[str, Any]],
    curves: dict[str, LearningCurve | None],
    score: Score,
    goal: float,
    sizes: Sequence[int],
) -> Any:
    """The metric against the number of training objects, with fitted curves, their bands and the target."""
    drawing = Figure(figsize=(6.5, 4.5), layout="constrained")
    panel = drawing.subplots()
    reach = np.geomspace(sizes[0], sizes[-1] * (4 if len(sizes) > 1 else 1.01), 100)
    for number, (method, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        own = [point for point in points if point["method"] == method]
        x, y = [point["size"] for point in own], np.array([point["value"] for point in own])
        ends = [y - [point["low"] for point in own], [point["high"] for point in own] - y]
        panel.errorbar(x, y, np.maximum(ends, 0), fmt="o", color=colour, markersize=4, capsize=2, label=method)
        if curve is None:
            continue
        low, high = (np.array([score.error(value) for value in side]) for side in curve.band(reach))
        panel.fill_between(reach, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.plot(reach, [score.error(value) for value in curve.at(reach)], color=colour, linewidth=1)
    panel.axhline(goal, color="k", linestyle=":", linewidth=1, label=f"target {goal:.3g}")
    panel.axvline(sizes[-1], color="k", linewidth=0.5, alpha=0.5)
    panel.set(xscale="log", xlabel="training objects", ylabel=score.name.replace("_", " "))
    panel.legend(fontsize=8)
    return drawing
