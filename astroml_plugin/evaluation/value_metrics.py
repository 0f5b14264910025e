"""How well numbers are measured, against the truth: errors, biases, coverage of intervals, with bootstrap intervals.

One name, one meaning, wherever a metrics.json has it, d being value minus truth: `bias` is the mean of d; `slope` and
`offset` are those of the straight line through d against truth, `offset` at truth 0; `pull_half_width` is half the
distance between the 15.865 % and the 84.135 % quantile of d over the 68.3 % half-width, 1 where errors are honest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.evaluation import bootstrap

FEWEST = 20
"""Objects below which nothing but their number is said."""

OUTLYING = 5.0
"""Multiples of the NMAD from the median, beyond which a value counts as an outlier."""

Widths = tuple[F64, F64]
"""Half-widths (n, k) of the 68.3 % and of the 95 % intervals."""


def statistics(values: F64, truth: F64, widths: Widths | None = None) -> dict[str, F64]:
    """Name -> (k,): rmse, bias, slope, offset; with widths coverage_683, coverage_95, pull_half_width.

    Args:
        values, truth: (n, k), all finite.
        widths: half-widths of the intervals.
    """
    difference = values - truth
    centred = truth - truth.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (centred * difference).sum(0) / (centred**2).sum(0)
    bias = difference.mean(0)
    named = {"rmse": np.sqrt((difference**2).mean(0)), "bias": bias, "slope": slope}
    named["offset"] = bias - slope * truth.mean(0)
    if widths is not None:
        named |= {name: (np.abs(difference) <= w).mean(0) for name, w in zip(("coverage_683", "coverage_95"), widths)}
        low, high = bootstrap.ends(difference / widths[0], bootstrap.PERCENT_68)
        named["pull_half_width"] = (high - low) / 2
    return named


def value_figures(
    values: F64, truth: F64, widths: Widths | None = None, *, repeats: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Plain JSON of `statistics`, lists over the k values; `<name>_interval` the central 68.3 % of bootstrap samples.

    Args:
        values, truth: (n, k); rows of `values` that are not finite are failures.
        widths: half-widths of the intervals.
        repeats: bootstrap samples; 0 gives no intervals.
        seed: of the bootstrap.

    Returns:
        count and failures alone for fewer than `FEWEST` objects, if intervals are asked for.
    """
    good = finite_rows(values)
    result: dict[str, Any] = {"count": len(good), "failures": int((~good).sum())}
    if good.sum() < (FEWEST if repeats else 2):
        return result
    v, t = values[good], truth[good]
    w = None if widths is None else (widths[0][good], widths[1][good])
    samples = [
        statistics(v[rows], t[rows], None if w is None else (w[0][rows], w[1][rows]))
        for rows in bootstrap.draws(len(v), repeats, seed)
    ]
    for name, value in statistics(v, t, w).items():
        result[name] = value.tolist()
        if repeats:
            ends = bootstrap.ends([sample[name] for sample in samples], bootstrap.PERCENT_68)
            result[f"{name}_interval"] = np.stack(ends, axis=1).tolist()
    return result


def residual_figures(values: F64, truth: F64, repeats: int = 500, seed: int = 0) -> dict[str, Any]:
    """Errors of one number, values and truth (n,): count, failures, and each figure as value, low, high (95 %).

    rmse; bias (mean of value - truth); nmad (1.4826 times the median distance from the median of value - truth: robust
    scatter); outlier_fraction (farther than `OUTLYING` times that from the median). Objects without a finite value are
    failures; those without a known truth are left out.
    """
    known = np.isfinite(truth)
    good = known & np.isfinite(values)
    difference = (values - truth)[good]
    result: dict[str, Any] = {"count": int(known.sum()), "failures": int((known & ~good).sum())}
    if len(difference) < FEWEST:
        return result

    def figures(rows: I64) -> dict[str, float]:
        return residual_statistics(difference[rows])

    return result | bootstrap.row_intervals(figures, len(difference), repeats, seed)


def residual_statistics(difference: F64) -> dict[str, float]:
    """rmse, bias, nmad and outlier_fraction of value - truth (n,): see `residual_figures`."""
    distance = np.abs(difference - np.median(difference))
    nmad = 1.4826 * float(np.median(distance))
    return {
        "rmse": float(np.sqrt((difference**2).mean())),
        "bias": float(difference.mean()),
        "nmad": nmad,
        "outlier_fraction": float((distance > OUTLYING * nmad).mean()),
    }


def residual_bins(values: F64, truth: F64, most: int = 12) -> dict[str, list[float]]:
    """How value minus truth (n,) goes with the truth, in at most `most` bins of equal numbers.

    Returns:
        Lists over the bins: truth (median), median, low and high (central 68.3 %) of the difference; empty for fewer
        than `FEWEST` objects with both.
    """
    good = np.isfinite(values) & np.isfinite(truth)
    if good.sum() < FEWEST:
        return {}
    t, d = truth[good], (values - truth)[good]
    parts = np.array_split(np.argsort(t, kind="stable"), min(most, max(1, len(t) // FEWEST)))
    ends = np.array([np.percentile(d[rows], (15.865, 50, 84.135)) for rows in parts])
    middle = [float(np.median(t[rows])) for rows in parts]
    return {"truth": middle, "median": ends[:, 1].tolist(), "low": ends[:, 0].tolist(), "high": ends[:, 2].tolist()}


def pull_histogram(values: F64, truth: F64, half: F64) -> dict[str, list[float]]:
    """Density of (value - truth) / half-width (n,) between -5 and 5; empty for fewer than `FEWEST` objects.

    Returns:
        `edges` of the bins and `density`, which sums to the part of the objects that lies within.
    """
    good = np.isfinite(values) & np.isfinite(truth) & (half > 0)
    if good.sum() < FEWEST:
        return {}
    edges = np.linspace(-5, 5, 41)
    counts, _ = np.histogram(((values - truth)[good]) / half[good], edges)
    return {"edges": edges.tolist(), "density": (counts / (good.sum() * (edges[1] - edges[0]))).tolist()}


def finite_rows(values: F64) -> Bool:
    """(n,) whether all numbers of a row (n, k) are finite."""
    return np.asarray(np.isfinite(values).all(axis=1))
