"""Whether lenses can be told from the rest by plain numbers: if they can, the simulation is too easy."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import F32, F64, Bool

EASY_FEATURES = ("total_flux", "centre_to_annulus_colour", "asymmetry")
"""Columns of `easy_features`."""


def easy_features(image: F32, pixel_scale: float) -> F64:
    """Total flux, colour of the centre against its surroundings, asymmetry.

    Args:
        image: (n, band, y, x) of g, r, i with even sides.
        pixel_scale: arcsec per pixel.

    Returns:
        (n, 3): decimal logarithm of the r flux within 4 arcsec; g - i within 0.6 arcsec less that of 0.8-2.4 arcsec;
        asymmetry of g under a turn by 180 degrees within 3 arcsec, which sees blue arcs best.
    """
    height, width = image.shape[-2:]
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height // 2, x - width // 2) * pixel_scale
    total = image[:, 1, radius < 4].sum(-1, dtype=np.float64)
    colour = _colour(image, radius < 0.6) - _colour(image, (radius >= 0.8) & (radius < 2.4))
    turnable, near = image[:, 0, 1:, 1:], (radius < 3)[1:, 1:]
    difference = np.abs(turnable - turnable[:, ::-1, ::-1])[:, near].sum(-1, dtype=np.float64)
    asymmetry = difference / np.abs(turnable[:, near]).sum(-1, dtype=np.float64)
    return np.stack([np.log10(np.maximum(total, 1.0)), colour, asymmetry], axis=1)


def _colour(image: F32, where: Bool) -> F64:
    blue, red = (np.maximum(image[:, band, where].sum(-1, dtype=np.float64), 1.0) for band in (0, 2))
    return np.asarray(-2.5 * np.log10(blue / red))
