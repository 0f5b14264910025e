"""How good a catalog of detected objects is: matched to the truth, by magnitude, in blends, in the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.spatial import KDTree
from scipy.special import ndtr

from astroml_plugin.core.typing import F64, I32, I64, Bool
from astroml_plugin.evaluation.bootstrap import draws, interval

MATCHED = 3.0
"""Pixels within which a detection and an object may be the same."""


def match(x: F64, y: F64, true_x: F64, true_y: F64, within: float = MATCHED) -> I64:
    """(n,) number of the true object of each detection, -1 for none: each is the other's nearest, within the limit."""
    found = np.full(len(x), -1, np.int64)
    if not len(x) or not len(true_x):
        return found
    mine, truth = np.stack([x, y], axis=1), np.stack([true_x, true_y], axis=1)
    distance, nearest = KDTree(truth).query(mine)
    back = KDTree(mine).query(truth)[1]
    mutual = (distance <= within) & (back[nearest] == np.arange(len(x)))
    found[mutual] = nearest[mutual]
    return found


def chance(x: F64, y: F64, true_x: F64, true_y: F64, side: tuple[int, int], within: float = MATCHED) -> float:
    """Fraction of detections that match when they are moved elsewhere: by eight large steps around the field."""
    height, width = side
    found: list[float] = []
    for step in range(1, 9):
        moved = (x + width * step / 9) % width, (y + height * (step * 4 % 9) / 9) % height
        found.append(float((match(*moved, true_x, true_y, within) >= 0).mean()) if len(x) else 0.0)
    return float(np.mean(found))


@dataclass(frozen=True)
class DetectionSet:
    """Detections of one field."""

    x: F64
    """(n,) pixels."""
    y: F64
    labels: I32
    """(h, w) 0 background, else number plus 1."""
    flux: dict[str, F64]
    """Kind -> (n,) in the image's units."""


@dataclass(frozen=True)
class Truth:
    """True objects of one field, from its simulation."""

    x: F64
    """(k,) pixels."""
    y: F64
    mag: F64
    flux: F64
    """(k,) total, in the image's units."""
    snr: F64
    """(k,) matched-filter S/N, alone."""
    star: Bool
    foreground: Bool
    """(h, w) light above one sigma."""
    owner: I32
    """(h, w) number of the brightest contributor, -1 for none of these."""
    fwhm: float
    """Full width at half maximum of the PSF, pixels."""


BINS = ((20.0, 23.0), (23.0, 24.0), (24.0, 25.0), (25.0, 26.0))


def counts(detections: DetectionSet, truth: Truth, border: int = 12) -> dict[str, F64]:
    """Sums of one field that figures of merit are ratios of: name -> (numerator, denominator).

    Objects and detections within `border` pixels of the field's edge take part in matching but are not counted.
    """
    height, width = truth.foreground.shape
    matched = match(detections.x, detections.y, truth.x, truth.y)
    hit = np.zeros(len(truth.x), bool)
    hit[matched[matched >= 0]] = True
    inner_found = _inside(detections.x, detections.y, height, width, border)
    inner = _inside(truth.x, truth.y, height, width, border)
    light = detections.labels > 0
    sums = {
        "purity": _ratio(inner_found & (matched >= 0), inner_found),
        "iou": np.array([(light & truth.foreground).sum(), (light | truth.foreground).sum()], float),
        "instance_pixels": _instances(detections, truth, matched),
        "density": np.array([inner_found.sum(), (height - 2 * border) * (width - 2 * border)], float),
    }
    for low, high in BINS:
        chosen = inner & (truth.mag >= low) & (truth.mag < high)
        sums[f"completeness {low:g}-{high:g}"] = _ratio(hit & chosen, chosen)
    first, second = pairs(truth)
    kept = inner[first] & inner[second]
    sums["pairs"] = _ratio((hit[first] & hit[second])[kept], np.ones(int(kept.sum()), bool))
    return sums


def pairs(truth: Truth, least: float = 5.0) -> tuple[I64, I64]:
    """Numbers of objects, both of S/N `least` or more alone, that are one to two PSF widths apart."""
    seen = np.flatnonzero(truth.snr >= least)
    if len(seen) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    tree = KDTree(np.stack([truth.x[seen], truth.y[seen]], axis=1))
    close = tree.query_pairs(2 * truth.fwhm, output_type="ndarray")
    apart = np.hypot(*(tree.data[close[:, 0]] - tree.data[close[:, 1]]).T)
    close = close[apart >= truth.fwhm]
    return seen[close[:, 0]], seen[close[:, 1]]


def blended(truth: Truth, least: float = 5.0) -> Bool:
    """(k,) whether an object has a neighbour of S/N `least` or more within two PSF widths."""
    first, second = pairs(truth, least)
    flagged = np.zeros(len(truth.x), bool)
    flagged[first] = flagged[second] = True
    return flagged


def flux_errors(detections: DetectionSet, truth: Truth, kind: str) -> tuple[I64, F64]:
    """Numbers of matched true objects, and measured over true flux minus 1."""
    matched = match(detections.x, detections.y, truth.x, truth.y)
    hit = matched >= 0
    return matched[hit], detections.flux[kind][hit] / truth.flux[matched[hit]] - 1


def _instances(detections: DetectionSet, truth: Truth, matched: I64) -> F64:
    """Foreground pixels whose label is that of their brightest contributor, over all foreground pixels."""
    owner = np.where(truth.foreground, truth.owner, -1)
    mine = np.full(len(matched) + 1, -2, np.int64)
    mine[1:] = np.where(matched >= 0, matched, -2)
    return np.array([(mine[detections.labels] == owner)[owner >= 0].sum(), (owner >= 0).sum()], float)


def _inside(x: F64, y: F64, height: int, width: int, border: int) -> Bool:
    return (x >= border) & (y >= border) & (x < width - border) & (y < height - border)


def _ratio(part: Bool, whole: Bool) -> F64:
    return np.array([part.sum(), whole.sum()], float)


def pooled(fields: list[dict[str, F64]], repeats: int = 1000, seed: int = 0) -> dict[str, list[float]]:
    """Ratios over all fields: name -> [value, low, high], 95 % by resampling fields."""
    rows = np.stack(list(draws(len(fields), repeats, seed)))
    result = {}
    for name in fields[0]:
        sums = np.stack([field[name] for field in fields])
        total, drawn = sums.sum(0), sums[rows].sum(1)
        drawn = drawn[drawn[:, 1] > 0]
        ratio = interval(total[0] / total[1] if len(drawn) else math.nan, drawn[:, 0] / drawn[:, 1])
        result[name] = list(ratio.values())
    return result


def matched_filter_ceiling(
    snr: F64, area: float, width: float, purity: float, *, true_rate: float = 1.0
) -> tuple[float, F64]:
    """Limit of a detector that knows every object's profile and place, at a purity.

    An object of S/N s passes a threshold t with probability Phi(s - t); noise has the peaks above t of a Gaussian field
    smoothed with the profile (density lambda t exp(-t²/2) / (2 pi)^(3/2), lambda = 1 / (2 width²): Adler 1981).

    Args:
        snr: (k,) matched-filter S/N of all objects.
        area: pixels searched.
        width: Gaussian sigma in pixels of a typical profile, PSF included.
        purity: of the detections.
        true_rate: fraction of detected objects that count as true.

    Returns:
        The threshold, and (k,) the probability of each object to be found.
    """

    def impure(threshold: float) -> float:
        true = true_rate * float(ndtr(snr - threshold).sum())
        false = area / (2 * width**2) / (2 * math.pi) ** 1.5 * threshold * math.exp(-(threshold**2) / 2)
        return float(true / (true + false) - purity)

    threshold = brentq(impure, 1.5, 12.0)
    return float(threshold), ndtr(snr - threshold)
