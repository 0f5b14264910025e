"""How good probability densities of a number are: point errors as of photometric redshifts, and calibration by PIT.

Definitions follow Schmidt et al. 2020 (MNRAS 499, 1587) and Dahlen et al. 2013 (ApJ 775, 93), with errors in the scale
of the number: (value - truth) / (1 + truth) for redshifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import bootstrap
from astroml_plugin.evaluation.figures import blank_figure
from astroml_plugin.evaluation.value_metrics import FEWEST

SCALES = ("log1p", "log", "linear")
LOWEST = {"log1p": -1.0, "log": 0.0, "linear": -np.inf}
"""Scale -> value above which values have a place in it."""

_PIT_BINS = 20
_EXTREME = 1e-4


def scaled(values: F64, scale: str) -> F64:
    """Values in a scale."""
    return np.asarray(np.log1p(values) if scale == "log1p" else np.log(values) if scale == "log" else values)


def unscaled(places: F64, scale: str) -> F64:
    """Values of places in a scale."""
    return np.asarray(np.expm1(places) if scale == "log1p" else np.exp(places) if scale == "log" else places)


def relative(values: F64, truth: F64, scale: str) -> F64:
    """(value - truth) over 1 + truth, over truth, or as it is."""
    size = {"log1p": 1 + truth, "log": truth, "linear": np.ones_like(truth)}[scale]
    return np.asarray((values - truth) / size)


def pit(cells: F64, edges: F64, truth: F64) -> F64:
    """(n,) probability (n, cells) below the truth (n,), straight within a cell of rising edges (cells + 1,)."""
    place = np.clip(np.searchsorted(edges, truth, side="right") - 1, 0, cells.shape[1] - 1)
    rows = np.arange(len(truth))
    before = np.cumsum(cells, 1)[rows, place] - cells[rows, place]
    part = np.clip((truth - edges[place]) / (edges[place + 1] - edges[place]), 0, 1)
    return np.asarray(np.clip(before + part * cells[rows, place], 0, 1))


def crps(cells: F64, edges: F64, truth: F64) -> F64:
    """(n,) continuous ranked probability score in the units of the edges: the mean distance for a single value."""
    below = np.concatenate([np.zeros((len(cells), 1)), np.cumsum(cells, 1)], 1)
    width = np.diff(edges)
    part = np.clip((truth[:, None] - edges[None, :-1]) / width, 0, 1)  # of each cell that lies below the truth
    low, high = below[:, :-1], below[:, 1:]
    middle = low + part * (high - low)
    under = part * (low**2 + low * middle + middle**2) / 3
    over = (1 - part) * ((1 - middle) ** 2 + (1 - middle) * (1 - high) + (1 - high) ** 2) / 3
    outside = np.maximum(edges[0] - truth, 0) + np.maximum(truth - edges[-1], 0)
    return np.asarray(((under + over) * width).sum(1) + outside)


def point_statistics(error: F64, outlier: float) -> dict[str, float]:
    """Figures of errors (n,) in the scale: bias (mean), median_bias, sigma_nmad, outlier_fraction, rmse.

    sigma_nmad is 1.4826 times the median distance from the median.
    """
    median = float(np.median(error))
    return {
        "bias": float(error.mean()),
        "median_bias": median,
        "sigma_nmad": 1.4826 * float(np.median(np.abs(error - median))),
        "outlier_fraction": float((np.abs(error) > outlier).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
    }


def density_statistics(places: F64, scores: F64) -> dict[str, float]:
    """Figures of PIT (n,) and CRPS (n,): crps, coverage_683, coverage_95, pit_ks, pit_extreme.

    pit_ks is the largest distance between the PIT's distribution and the even one, pit_extreme the fraction of objects
    below 1e-4 or above 1 - 1e-4.
    """
    ordered, steps = np.sort(places), np.arange(len(places) + 1) / len(places)
    off = np.abs(places - 0.5)
    return {
        "crps": float(scores.mean()),
        "coverage_683": float((off <= 0.683 / 2).mean()),
        "coverage_95": float((off <= 0.95 / 2).mean()),
        "pit_ks": float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())),
        "pit_extreme": float(((places < _EXTREME) | (places > 1 - _EXTREME)).mean()),
    }


def figures_of(
    values: F64, truth: F64, cells: F64, edges: F64, scale: str, outlier: float, repeats: int = 500
) -> dict[str, Any]:
    """All figures of one number as value, low and high (95 %), the PIT's histogram, and errors in bins of the truth.

    Args:
        values: (n,) one value per object, NaN where none could be measured.
        truth: (n,), NaN where unknown.
        cells: (n, cells) probabilities.
        edges: (cells + 1,) of the cells, in the scale.
        scale: one of `SCALES`.
        outlier: error beyond which an object is an outlier.
        repeats: bootstrap samples.
    """
    known = np.isfinite(truth) & (truth > LOWEST[scale])
    good = known & np.isfinite(values) & np.isfinite(cells).all(1)
    result: dict[str, Any] = {"count": int(known.sum()), "failures": int((known & ~good).sum()), "outlier": outlier}
    if good.sum() < FEWEST:
        return result
    error = relative(values[good], truth[good], scale)
    places = pit(cells[good], edges, scaled(truth[good], scale))
    scores = crps(cells[good], edges, scaled(truth[good], scale))

    def told(rows: I64) -> dict[str, float]:
        return {**point_statistics(error[rows], outlier), **density_statistics(places[rows], scores[rows])}

    counts, _ = np.histogram(places, np.linspace(0, 1, _PIT_BINS + 1))
    result |= bootstrap.row_intervals(told, len(error), repeats)
    return result | {"pit": counts.tolist(), "truth_bins": _bins(error, truth[good], outlier)}


def _bins(error: F64, truth: F64, outlier: float) -> list[dict[str, float]]:
    """Point figures in bins of equal numbers of the truth."""
    order = np.argsort(truth, kind="stable")
    found = []
    for rows in np.array_split(order, min(10, max(1, len(order) // FEWEST))):
        low, high = float(truth[rows[0]]), float(truth[rows[-1]])
        found.append({"low": low, "high": high, "count": len(rows), **point_statistics(error[rows], outlier)})
    return found


def figure(values: F64, truth: F64, found: Mapping[str, Any], name: str) -> Any:
    """Measured against true values, scatter and bias against the truth, and the histogram of the PIT."""
    figure_, panels = blank_figure(12.0, 4.0, ncols=3)
    first, second, third = panels[0]
    good = np.isfinite(values) & np.isfinite(truth)
    first.plot(truth[good], values[good], ".", markersize=2, alpha=0.3, rasterized=True)
    ends = [float(truth[good].min()), float(truth[good].max())]
    first.plot(ends, ends, "k-", linewidth=1)
    first.set(xlabel=f"true {name}", ylabel=f"measured {name} (median of the density)")
    bins = found["truth_bins"]
    middle = [(one["low"] + one["high"]) / 2 for one in bins]
    for key, word in (("sigma_nmad", "σ NMAD"), ("median_bias", "bias (median)"), ("outlier_fraction", "outliers")):
        second.plot(middle, [one[key] for one in bins], "o-", markersize=4, linewidth=1, label=word)
    second.axhline(0, color="k", linewidth=0.6)
    second.set(xlabel=f"true {name}", ylabel="in bins of the truth")
    second.legend(fontsize=8, frameon=False)
    counts = np.array(found["pit"], float)
    even = counts.sum() / len(counts)
    third.bar((np.arange(len(counts)) + 0.5) / len(counts), counts / even, 1 / len(counts), edgecolor="white")
    third.axhspan(1 - 1.96 / np.sqrt(even), 1 + 1.96 / np.sqrt(even), color="0.6", alpha=0.4)
    third.set(xlabel="PIT", ylabel="objects over even (grey: 95 % of chance)", xlim=(0, 1))
    return figure_
