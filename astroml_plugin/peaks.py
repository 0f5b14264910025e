"""Bright local maxima: where to look in an image that comes without a catalogue."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def find_peaks(
    image: NDArray[np.floating],
    usable: NDArray[np.bool_] | None = None,
    *,
    threshold: float = 8.0,
    distance: int = 5,
    most: int = 500,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Local maxima of the 3 x 3 mean of `image`, brightest first.

    Args:
        image: (y, x); pixels that are not finite are not looked at.
        usable: (y, x) False where masked.
        threshold: height above the median in units of the noise (1.48 x the median absolute deviation, after the mean).
        distance: pixels within which only the highest counts.
        most: peaks to return at most.

    Returns:
        x, y (0-based, intensity-weighted in 3 x 3) and height in units of the noise, each (n,).
    """
    good = np.isfinite(image) if usable is None else np.isfinite(image) & usable
    if good.sum() < 9:
        return np.empty(0), np.empty(0), np.empty(0)
    level = float(np.median(image[good]))
    flat = np.where(good, image - level, 0.0)
    smooth = sliding_window_view(np.pad(flat, 1), (3, 3)).mean((2, 3))
    noise = 1.4826 * float(np.median(np.abs(smooth[good])))
    if noise == 0:
        noise = float(smooth[good].std()) or 1.0
    side = 2 * distance + 1
    padded = np.pad(smooth, distance, constant_values=-np.inf)
    rows = sliding_window_view(padded, side, axis=1).max(2)
    highest = sliding_window_view(rows, side, axis=0).max(2)
    y, x = np.nonzero((smooth == highest) & (smooth > threshold * noise) & good)
    height = smooth[y, x] / noise
    order = np.argsort(-height, kind="stable")[:most]
    y, x = y[order], x[order]
    dx, dy = _centroid(np.maximum(flat, 0), x, y)
    return x + dx, y + dy, height[order]


def _centroid(
    flat: NDArray[np.floating], x: NDArray[np.int64], y: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets of the intensity-weighted mean in 3 x 3 pixels."""
    box = sliding_window_view(np.pad(flat, 1), (3, 3))[y, x]
    total = np.maximum(box.sum((1, 2)), 1e-30)
    step = np.array([-1.0, 0.0, 1.0])
    return (box.sum(1) * step).sum(1) / total, (box.sum(2) * step).sum(1) / total
