"""Depth and sharpness of a tile's image, for the choice between images that overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.cutouts.calibration import known
from astroml_plugin.pixels import NANOJANSKY
from astroml_plugin.pixels.correlation import growth_in_gaussians, next_to_each_other
from astroml_plugin.sources.quality import fine_noise, grid_step
from astroml_plugin.sources.tile_table import TileInfo
from astroml_plugin.tasks.detection import Field

USUAL_FWHM = 4.0
"""Pixels taken for the PSF where the image has none: half of it is the match radius."""

_SIGNIFICANCE = 5.0
_FWHM_OF_SIGMA = 2.3548
_LOOKED_AT = 2**18


def of_tile(info: TileInfo) -> Exposure:
    """Name and shape of the image of a tile: all that it tells without its pixels."""
    return Exposure(info.image, *info.image_shape)


def of_field(info: TileInfo, field: Field) -> Exposure:
    """Depth and sharpness of the image of a tile, from its pixels in the bands that objects are found in.

    The depth is that of a point source of 5 sigma, measured with the PSF as weight, in all bands with a zero point
    together (inverse variances added, as for a flat spectrum). The noise is the median variance, or that of
    neighbouring pixels where there is no variance, and it grows in sums as `Field.noise_growth` says.
    """
    fwhm = field.median_psf_fwhm
    has_psf = bool(np.isfinite(fwhm))
    width = fwhm if has_psf else USUAL_FWHM
    weight = sum(1 / variance for variance in _variances(field, (width / _FWHM_OF_SIGMA) ** 2) if variance > 0)
    depth = None
    if weight > 0:
        spread = np.sqrt(4 * np.pi) * width / _FWHM_OF_SIGMA  # pixels that a source's noise is of, square root
        depth = float(NANOJANSKY - 2.5 * np.log10(_SIGNIFICANCE * spread / np.sqrt(weight)))
    arcsec = None if field.pixel_scale is None else float(width * field.pixel_scale)
    return replace(of_tile(info), depth=depth, fwhm=arcsec, has_psf=has_psf)


def _variances(field: Field, square: float) -> list[float]:
    """Variance in nJy² of a pixel in each band with a zero point; bands without a usable pixel are not there.

    It is that of as much white noise as gives the noise of a point source, whose PSF has the σ² `square` in pixels².
    """
    found = []
    for band, zero_point in enumerate(known(field.zero_points, len(field.bands)).tolist()):
        variance = _variance(field, band)
        if np.isfinite(zero_point) and np.isfinite(variance):
            variance *= float(growth_in_gaussians(field.growth(band), np.array([square]))[0]) ** 2
            found.append(variance * 10 ** (0.8 * (NANOJANSKY - zero_point)))
    return found


def _variance(field: Field, band: int) -> float:
    """Variance of a usual pixel in the field's unit; NaN without usable pixels."""
    usable = None if field.bits is None else field.bits[band] == 0
    if field.variance is None:
        beside = next_to_each_other(field.growth(band))  # of correlated pixels, neighbours differ too little
        return fine_noise(field.image[band], usable) ** 2 / (1 - beside)
    step = grid_step(field.variance[band].size, _LOOKED_AT)
    sample = field.variance[band][::step, ::step]
    sample = sample[(sample > 0) & np.isfinite(sample) & (True if usable is None else usable[::step, ::step])]
    return float(np.median(sample)) if len(sample) else float("nan")
