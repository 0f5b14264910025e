"""Stamps that are drawn without any data: versions of a network are compared on them."""

from __future__ import annotations

import numpy as np

from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.tasks.input_unit import zero_point_of
from astroml_plugin.tasks.normalisation import gaussian_psf
from astroml_plugin.tasks.settings import TaskSettings


def example_stamps(settings: TaskSettings, side: int, count: int) -> Cutouts:
    """Draw stamps as a source for these settings would have them, the same at every call.

    Each has noise of width 1, in units of the scales where there are any, and a round source.

    Args:
        settings: bands, kind of pixels, PSF and scales.
        side: pixels.
        count: stamps.
    """
    bands = len(settings.bands)
    random = np.random.default_rng(0)
    sources = gaussian_psf(max(2.0, side / 8), side).numpy() * np.geomspace(1e2, 1e4, count)[:, None, None, None]
    image = random.normal(size=(count, bands, side, side)) + sources
    if len(settings.normalisation.scales) == bands:
        image *= np.reshape(settings.normalisation.scales, (bands, 1, 1))
    if settings.dtype == "uint8" and not settings.any_dtype:
        image = np.clip(image * 4 + 40, 0, 255).astype(np.uint8)
    image = image if image.dtype == np.uint8 else image.astype(np.float32)
    psf = None
    if settings.psf != "none":
        psf = np.broadcast_to(gaussian_psf(4.0, settings.psf_size).numpy(), (count, bands, *2 * (settings.psf_size,)))
    variance = np.ones(image.shape, np.float32)
    unit = (zero_point_of(settings.input_unit),) * bands
    names, scale = tuple(settings.bands), settings.pixel_scale
    return from_stamps(image, variance, psf, bands=names, pixel_scale=scale, zero_points=unit)
