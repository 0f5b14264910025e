"""Width of the image of a point-spread function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def psf_fwhm(psf: NDArray[np.floating]) -> float:
    """FWHM in pixels of a PSF image (py, px), of the Gaussian that its core above a third of the peak is fitted with.

    NaN where there is no such core.
    """
    values = np.nan_to_num(np.asarray(psf, np.float64))
    core = values > values.max() / 3 if values.size else np.zeros(0, bool)
    if values.max(initial=0.0) <= 0 or core.sum() < 4:
        return float("nan")
    row, column = np.nonzero(core)
    light = values[core]
    square = (row - np.average(row, weights=light)) ** 2 + (column - np.average(column, weights=light)) ** 2
    slope = np.polyfit(square, np.log(light), 1)[0]
    return float(np.sqrt(-4 * np.log(2) / slope)) if slope < 0 else float("nan")
