"""Bootstrap intervals (Efron 1979): draws of objects, of strata, of blocks; plain, weighted and paired figures.

A figure of merit is a function of the rows that are drawn, or of how often each object is drawn. Draws that are made
once and given to several methods are paired: the interval of a difference then needs no assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.typing import F64, I64, Array

Interval = dict[str, float]
"""value, low and high."""

PERCENT_95 = (2.5, 97.5)
"""Percentiles at the ends of a central 95 % interval."""

PERCENT_68 = (15.865, 84.135)
"""Percentiles at the ends of a central 68.3 % interval, plus and minus one sigma of a Gaussian."""


# ---- draws -------------------------------------------------------------------------------------------------------


def draws(count: int, repeats: int, seed: int = 0) -> Iterator[I64]:
    """`repeats` times (count,) rows of `count` objects, drawn with replacement."""
    return stratified_draws([np.arange(count)], repeats, seed)


def stratified_draws(strata: Sequence[I64], repeats: int, seed: int = 0) -> Iterator[I64]:
    """`repeats` times rows, as many of each stratum (k,) as it has, drawn with replacement; strata in their order."""
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        yield np.concatenate([stratum[rng.integers(0, len(stratum), len(stratum))] for stratum in strata])


def times(rows: I64, count: int) -> I64:
    """(count,) how often each object is among the drawn rows."""
    return np.bincount(rows, minlength=count)


def resampled_sums(sums: F64, repeats: int, seed: int = 0) -> F64:
    """Sums of the whole sample, then of `repeats` samples of its blocks, drawn with replacement.

    Args:
        sums: (block, ...).

    Returns:
        (1 + repeats, ...). The same seed draws the same blocks. Without blocks the samples are NaN.
    """
    count = len(sums)
    whole = sums.sum(0, keepdims=True)
    if count == 0 or repeats == 0:
        return np.concatenate([whole, np.full((repeats, *sums.shape[1:]), np.nan)])
    chosen = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats)
    return np.concatenate([whole, np.tensordot(chosen.astype(np.float64), sums, axes=1)])


# ---- intervals ---------------------------------------------------------------------------------------------------


def ends(samples: ArrayLike, percentiles: tuple[float, float] = PERCENT_95) -> tuple[Array, Array]:
    """Lower and upper end (...) of the values of bootstrap samples (sample, ...); NaN without samples."""
    values = np.asarray(samples, np.float64)
    if not len(values):
        blank = np.full(values.shape[1:], np.nan)
        return blank, blank
    low, high = np.percentile(values, percentiles, axis=0)
    return np.asarray(low), np.asarray(high)


def interval(value: float, samples: ArrayLike) -> Interval:
    """A value with the 95 % interval of its bootstrap samples (sample,); those that are not finite are left out."""
    values = np.asarray(samples, np.float64)
    low, high = ends(values[np.isfinite(values)])
    return {"value": float(value), "low": float(low), "high": float(high)}


def intervals(whole: Mapping[str, float], samples: Iterable[Mapping[str, float]]) -> dict[str, Interval]:
    """Figures of the whole sample, each with the 95 % interval of those of bootstrap samples."""
    drawn = list(samples)
    return {name: interval(value, [sample[name] for sample in drawn]) for name, value in whole.items()}


def gains(
    whole: Mapping[str, float],
    samples: Sequence[Mapping[str, float]],
    other: Mapping[str, float],
    other_samples: Sequence[Mapping[str, float]],
) -> dict[str, Interval]:
    """Figures of one method less those of another, `<name>_gain`, from samples that were drawn in pairs."""
    differences = [{name: sample[name] - pair[name] for name in whole} for sample, pair in zip(samples, other_samples)]
    found = intervals({name: value - other[name] for name, value in whole.items()}, differences)
    return {f"{name}_gain": value for name, value in found.items()}


def weighted_intervals(
    figures: Callable[[F64], Mapping[str, float]], weight: F64, repeats: int, seed: int = 0
) -> dict[str, Interval]:
    """Figures, with 95 % intervals, of a function of how much each object counts (n,)."""
    count = len(weight)
    return intervals(figures(weight), (figures(weight * times(rows, count)) for rows in draws(count, repeats, seed)))


def row_intervals(
    figures: Callable[[I64], Mapping[str, float]], count: int, repeats: int, seed: int = 0
) -> dict[str, Interval]:
    """Figures, with 95 % intervals, of a function of the rows (n,) of the objects that are taken."""
    return intervals(figures(np.arange(count)), map(figures, draws(count, repeats, seed)))
