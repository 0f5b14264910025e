"""One object of the universe on pixels: how far it reaches, its images per band, its signal to noise."""

from __future__ import annotations

import math

import numpy as np

from astroml_plugin.core.typing import F32
from astroml_plugin.simulation.camera import Camera, flux_of
from astroml_plugin.simulation.objects import Objects
from astroml_plugin.simulation.profiles import Blur, Matrix, Psf, grid_for, grid_size, psf_transform, to_image

FAINTEST = 0.02
"""Surface brightness, in sky sigmas per pixel, at which an object's drawing may end."""

_PSF_REACH = 8.0
"""Pixels added around a galaxy for the PSF (0.7 arcsec at 0.2 arcsec per pixel), scaled with its FWHM."""


def reach(objects: Objects, i: int, psf: Psf, camera: Camera) -> float:
    """Pixels from the centre of object `i` to where its surface brightness falls to `FAINTEST` sky sigmas."""
    scale = camera.pixel_scale
    margin = _PSF_REACH * psf.fwhm / 0.7 * 0.2 / scale
    blur = Blur(psf.fwhm / 1.02 / scale, margin, FAINTEST * camera.sky_sigma)
    to_pixels, flux = Matrix(1 / scale, 0.0, 0.0, 1 / scale), flux_of(objects.mag[i], camera)
    return float(
        max(
            part.profile.reach(to_pixels.after(part.matrix), float((flux * part.share).max()), blur)
            for part in objects.parts[i]
        )
    )


def spread(objects: Objects, i: int, camera: Camera) -> float:
    """Pixels from the centre of object `i` beyond which lies next to none of its light, the PSF's blur apart."""
    return float(max(part.profile.spread * part.matrix.stretch() for part in objects.parts[i]) / camera.pixel_scale)


def draw(objects: Objects, i: int, psf: Psf, camera: Camera, dx: float, dy: float, size: int) -> F32:
    """Noiseless counts (band, size, size) of object `i`, centre at pixel (size/2 + dx, size/2 + dy).

    Always the same bits for the same object, wherever and by whomever it is drawn.
    """
    flux = flux_of(objects.mag[i], camera)
    grid, response = grid_for(psf, size, camera.pixel_scale), psf_transform(psf, size, camera.pixel_scale)
    image: F32 | None = None
    for part in objects.parts[i]:
        plane = to_image(part.profile.transform(part.matrix, grid) * response, grid, dx, dy)
        scaled = plane[None] * (flux * part.share).astype(np.float32)[:, None, None]
        image = scaled if image is None else image + scaled
    assert image is not None
    return image


def natural_size(objects: Objects, i: int, psf: Psf, camera: Camera) -> int:
    """Side of the square that object `i` is drawn on."""
    return grid_size(reach(objects, i, psf, camera))


def signal_to_noise(model: F32, camera: Camera) -> float:
    """Matched-filter S/N of one band's noiseless image: sqrt(sum of model^2 / variance)."""
    return math.sqrt(float(np.sum(model.astype(np.float64) ** 2 / camera.variance(model))))


def add(canvas: F32, stamp: F32, x: int, y: int) -> None:
    """Add `stamp` (band, n, n) to `canvas` (band, h, w) with its first pixel at (x, y), cut at the edges."""
    height, width, side = canvas.shape[1], canvas.shape[2], stamp.shape[1]
    x0, x1, y0, y1 = max(x, 0), min(x + side, width), max(y, 0), min(y + side, height)
    if x0 < x1 and y0 < y1:
        canvas[:, y0:y1, x0:x1] += stamp[:, y0 - y : y1 - y, x0 - x : x1 - x]
