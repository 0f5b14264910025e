"""One object of the universe on pixels: how far it reaches, its images per band, its signal to noise."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.simulation.population import Camera, Objects, flux_of
from astroml_plugin.simulation.profiles import (
    Psf,
    grid_size,
    psf_transform,
    shape_transform,
    to_image,
)

Float = NDArray[np.float32]

FAINTEST = 0.02
"""Surface brightness, in sky sigmas per pixel, at which an object's drawing may end."""

_PSF_REACH = 8.0
"""Pixels added around a galaxy for the PSF (0.7 arcsec at 0.2 arcsec per pixel), scaled with its FWHM."""


def reach(objects: Objects, i: int, psf: Psf, camera: Camera) -> float:
    """Pixels from the centre of object `i` to where its surface brightness falls to `FAINTEST` sky sigmas."""
    flux = float(flux_of(objects.mag[i], camera).max())
    limit = FAINTEST * camera.sky_sigma
    blur = _PSF_REACH * psf.fwhm / 0.7 * 0.2 / camera.pixel_scale
    if objects.is_star(i):
        core = psf.fwhm / 1.02 / camera.pixel_scale
        return max(2 * blur, core * (flux * 2 / (math.pi * core**2) / limit) ** (1 / 6))
    shape = objects.shape(i)
    n, radius = shape.sersic_n, shape.half_light_radius / camera.pixel_scale
    b = 2 * n - 1 / 3
    at_radius = flux / (2 * math.pi * n * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n) * radius**2)
    scale = (1 + max(0.0, math.log(max(at_radius / limit, 1.0))) / b) ** n
    e = math.hypot(shape.e1, shape.e2)
    return radius * max(scale, 2.5) * math.sqrt((1 + e) / (1 - e)) + blur


@lru_cache(maxsize=32)
def _psf_transform(psf: Psf, size: int, pixel_scale: float) -> Float:
    return psf_transform(psf, size, pixel_scale)


def draw(objects: Objects, i: int, psf: Psf, camera: Camera, dx: float, dy: float, size: int) -> Float:
    """Noiseless counts (band, size, size) of object `i`, centre at pixel (size/2 + dx, size/2 + dy).

    Always the same bits for the same object, wherever and by whomever it is drawn.
    """
    flux = flux_of(objects.mag[i], camera)
    scale = camera.pixel_scale
    response = _psf_transform(psf, size, scale)
    if objects.is_star(i):
        return _scaled(to_image(response, size, scale, dx, dy), flux)
    main = to_image(shape_transform(objects.shape(i), size, scale) * response, size, scale, dx, dy)
    fraction = objects.bulge[i]
    if not fraction.any():
        return _scaled(main, flux)
    bulge = to_image(shape_transform(objects.bulge_shape(i), size, scale) * response, size, scale, dx, dy)
    return _scaled(main, flux * (1 - fraction)) + _scaled(bulge, flux * fraction)


def _scaled(profile: Float, flux: NDArray[np.float64]) -> Float:
    return profile[None] * flux.astype(np.float32)[:, None, None]


def natural_size(objects: Objects, i: int, psf: Psf, camera: Camera) -> int:
    """Side of the square that object `i` is drawn on."""
    return grid_size(reach(objects, i, psf, camera))


def signal_to_noise(model: Float, camera: Camera) -> float:
    """Matched-filter S/N of one band's noiseless image: sqrt(sum of model^2 / variance)."""
    return math.sqrt(float(np.sum(model.astype(np.float64) ** 2 / camera.variance(model))))


def add(canvas: Float, stamp: Float, x: int, y: int) -> None:
    """Add `stamp` (band, n, n) to `canvas` (band, h, w) with its first pixel at (x, y), cut at the edges."""
    height, width, side = canvas.shape[1], canvas.shape[2], stamp.shape[1]
    x0, x1, y0, y1 = max(x, 0), min(x + side, width), max(y, 0), min(y + side, height)
    if x0 < x1 and y0 < y1:
        canvas[:, y0:y1, x0:x1] += stamp[:, y0 - y : y1 - y, x0 - x : x1 - x]
