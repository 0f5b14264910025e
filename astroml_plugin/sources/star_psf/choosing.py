"""Which objects of an image are single stars: those of one size and one shape, which vary slowly over the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.sources.star_psf.finding import BRIGHT, Objects

_SMALLEST, _LONGEST, _SHARPEST = np.log(0.5), 0.4, 0.65
"""Logarithm of the width, distortion, and part of the light in one pixel beyond which an object is a cosmic ray."""

_BLUR, _SHARE = 0.03, 0.25
"""Width of the smoothing of the histogram of ln(width), and height of a peak against the highest: stars are the first
such peak, as nothing is smaller than a star."""

_ROUND, _HALF = 0.12, 0.5
"""Part of the objects of a peak whose distortion lies that near to the median: those of cosmic rays scatter."""

_LEAST_SNR, _LEAST_PEAK = (20.0, 60.0, 180.0, 540.0), 4
"""S/N from which on peaks are looked for, and objects of a peak at least."""

_NEAR_PEAK, _SAME_PEAK = 0.15, 0.06
_LOOSEST = 0.1
"""ln(width) by which a star may lie off the surface of the others, at most."""

_SIGMA = 1.4826
_ROUNDS = 12

_FULL, _LEAST_FULL, _BELOW_FULL = 0.97, 3, 0.9
"""Pixels are full from a level on where so many objects have their peak within that part of the highest one; stars
above the other part of it are not used."""

_ISOLATION = ((3.0, 0.003), (2.0, 0.01), (1.5, 0.05))
"""FWHMs within which no object may have more than a part of the star's light; the next where too few stars are left."""

_ENOUGH = 60
FAINTEST = 40.0
"""S/N of stars, down to `BRIGHT` where they are few."""

_FEW = 30
MOST = 400
"""Stars that are used, at most; of more, the brightest of each part of the image."""

_PARTS = 6


@dataclass(frozen=True, eq=False)
class Choice:
    """Stars among objects."""

    stars: I64
    """Numbers of the objects."""
    fwhm: float
    """In pixels, about; NaN without stars."""
    rejected: dict[str, int]
    """Why other objects of enough light are none -> how many."""


def choose_stars(objects: Objects, shape: tuple[int, int], edge: int | None = None) -> Choice:
    """Single stars of enough light.

    Args:
        objects: of the image.
        shape: (height, width) of the image.
        edge: pixels from the border within which a star is of no use; None for two FWHM.
    """
    bright = objects.snr >= BRIGHT
    clean = bright & (objects.whole > 0) & np.isfinite(objects.width)
    sharp = (objects.width < _SMALLEST) | (objects.spike > _SHARPEST)
    compact = clean & ~sharp & (np.hypot(objects.e1, objects.e2) < _LONGEST)
    rejected = {
        "masked, merged or at the border": int((bright & ~clean).sum()),
        "cosmic rays": int((clean & sharp).sum()),
    }
    found = _star_peak(objects, compact)
    if found is None:
        return Choice(np.zeros(0, np.int64), float("nan"), rejected)
    peak, least = found
    alike = _alike(objects, compact, peak, least, shape)
    fwhm = float(np.sqrt(8 * np.log(2)) * np.exp(np.median(objects.width[alike]) if alike.any() else peak))
    rejected["galaxies and other shapes"] = int((clean & ~sharp & ~alike).sum())
    margin = int(np.ceil(2 * fwhm)) if edge is None else edge
    full = objects.peak > _highest(objects, clean)
    rejected["full"] = int((alike & full).sum())
    alike &= ~full
    inside = (np.minimum(objects.x, shape[1] - 1 - objects.x) >= margin) & (
        np.minimum(objects.y, shape[0] - 1 - objects.y) >= margin
    )
    rejected["masked, merged or at the border"] += int((alike & ~inside).sum())
    alike &= inside
    single = _single(objects, alike, fwhm)
    rejected["blended"] = int((alike & ~single).sum())
    enough = single & (objects.snr >= FAINTEST)
    kept = enough if enough.sum() >= _FEW else single
    rejected["faint"] = int((single & ~kept).sum())
    chosen = _spread(objects, np.flatnonzero(kept), shape)
    rejected["more than needed"] = int(kept.sum()) - len(chosen)
    return Choice(chosen, fwhm, rejected)


def _star_peak(objects: Objects, compact: Bool) -> tuple[float, float] | None:
    """ln(width) of the stars, and the S/N from which on they stand out; None without any object.

    Among faint objects galaxies may hide the peak of the stars, so brighter ones are looked at alone, too.
    """
    found = [_first_peak(objects, compact & (objects.snr >= least)) for least in _LEAST_SNR]
    known = [width for width, round_ in found if round_]
    if not known:
        return (found[0][0], _LEAST_SNR[0]) if np.isfinite(found[0][0]) else None
    return next(
        (width, least)
        for (width, round_), least in zip(found, _LEAST_SNR, strict=True)
        if round_ and width < min(known) + _SAME_PEAK
    )


def _first_peak(objects: Objects, chosen: Bool) -> tuple[float, bool]:
    """ln(width) of the first high peak of objects of one shape, and whether there is one; else of the highest."""
    width = objects.width[chosen]
    if not len(width):
        return float("nan"), False
    weight = np.log(objects.snr[chosen] / BRIGHT) + 0.05
    bins = np.arange(width.min() - 0.2, width.max() + 0.2, _BLUR / 3)
    counts, _ = np.histogram(width, bins, weights=weight)
    kernel = np.exp(-0.5 * (np.arange(-12, 13) / 3) ** 2)
    height = np.convolve(counts, kernel, "same")
    middle = (bins[1:] + bins[:-1]) / 2
    for number in range(1, len(height) - 1):
        if height[number] < max(height[number - 1], height[number + 1], _SHARE * height.max(), 1e-9):
            continue
        near = chosen & (np.abs(objects.width - middle[number]) < 2 * _BLUR)
        e1, e2 = objects.e1[near], objects.e2[near]
        alike = np.hypot(e1 - np.median(e1), e2 - np.median(e2)) < _ROUND if len(e1) else np.zeros(1, bool)
        if len(e1) >= _LEAST_PEAK and alike.mean() >= _HALF:
            return float(middle[number]), True
    return float(middle[int(np.argmax(height))]), False


def _alike(objects: Objects, compact: Bool, peak: float, least: float, shape: tuple[int, int]) -> Bool:
    """Objects on the surface of widths and shapes that begins at the peak, as those of S/N `least` and more tell it."""
    terms, telling = _terms(objects, shape), objects.snr >= least
    kept = compact & (np.abs(objects.width - peak) < _NEAR_PEAK)
    noise = 1 / np.maximum(objects.snr, 1)
    for _ in range(_ROUNDS):
        off = objects.width - _surface(terms, objects.width, kept & telling)
        scatter = max(_scatter(off[kept & telling]), 0.004)
        limit = np.minimum(np.hypot(2.5 * scatter, 2.5 * noise), _LOOSEST)
        following = compact & (off < limit) & (off > -1.2 * limit)
        if (following == kept).all() or (following & telling).sum() < 3:
            break
        kept = following
    for _ in range(3):
        for shown in (objects.e1, objects.e2):
            off = shown - _surface(terms, shown, kept)
            scatter = max(_scatter(off[kept]), 0.015)
            kept = kept & (np.abs(off) < np.hypot(3 * scatter, 3 * noise))
    return kept


def _highest(objects: Objects, clean: Bool) -> float:
    """Peak above which a star may be full; infinity where nothing tells a level."""
    peaks = objects.peak[clean & (objects.spike < _SHARPEST)]
    if not len(peaks) or (peaks >= _FULL * peaks.max()).sum() < _LEAST_FULL:
        return float("inf")
    return _BELOW_FULL * float(peaks.max())


def _terms(objects: Objects, shape: tuple[int, int]) -> F64:
    u, v = 2 * objects.x / shape[1] - 1, 2 * objects.y / shape[0] - 1
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)


def _surface(terms: F64, values: F64, kept: Bool) -> F64:
    """Value of a polynomial through the kept objects, of an order that they bear, at all."""
    count = int(kept.sum())
    used = 1 if count < 12 else 3 if count < 40 else 6
    if count == 0:
        return np.zeros(len(values))
    if used == 1:
        return np.full(len(values), float(np.median(values[kept])))
    factors = np.linalg.lstsq(terms[kept][:, :used], values[kept], rcond=None)[0]
    return np.asarray(terms[:, :used] @ factors)


def _scatter(values: F64) -> float:
    return _SIGMA * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def _single(objects: Objects, alike: Bool, fwhm: float) -> Bool:
    """Stars without a neighbour that counts; of those with faint ones where there are few others."""
    tree = cKDTree(np.column_stack([objects.x, objects.y]))
    chosen = np.flatnonzero(alike)
    single = np.zeros(len(objects), bool)
    for radius, part in _ISOLATION:
        near = tree.query_ball_point(np.column_stack([objects.x[chosen], objects.y[chosen]]), radius * fwhm)
        alone = [
            max((objects.flux[other] for other in others if other != star), default=0.0) <= part * objects.flux[star]
            for star, others in zip(chosen, near, strict=True)
        ]
        single[:] = False
        single[chosen[np.array(alone, bool)]] = True
        if (single & (objects.snr >= FAINTEST)).sum() >= _ENOUGH:
            break
    return single


def _spread(objects: Objects, chosen: I64, shape: tuple[int, int]) -> I64:
    """At most `MOST` of the chosen: in turn the next brightest of each part of the image."""
    if len(chosen) <= MOST:
        return chosen
    column = np.clip(objects.x[chosen] / shape[1] * _PARTS, 0, _PARTS - 1).astype(int)
    row = np.clip(objects.y[chosen] / shape[0] * _PARTS, 0, _PARTS - 1).astype(int)
    order = np.argsort(-objects.snr[chosen], kind="stable")
    part, rank = (row * _PARTS + column)[order], np.zeros(len(chosen), int)
    for number in range(_PARTS**2):
        rank[part == number] = np.arange((part == number).sum())
    return np.sort(chosen[order][np.argsort(rank, kind="stable")[:MOST]])
