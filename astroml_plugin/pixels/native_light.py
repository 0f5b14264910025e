"""Sums of light by compiled code (see `pixels.native`): centres, apertures, images of the PSF."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astroml_plugin.pixels.native import Array, Shape, address, call, planes, same_shape, valid_planes


class _Centre(ctypes.Structure):
    _fields_ = [
        ("half", ctypes.c_int64),
        ("step", ctypes.c_int64),
        ("core", ctypes.c_float),
        ("noise", ctypes.c_float),
        ("band_weight", ctypes.c_void_p),
        ("moments", ctypes.c_void_p),
    ]


def moments(plane: Array, place: Array, width: float) -> Array:
    """(n, 4) sums of planes (n, side, side) under a Gaussian about places (n, 2) x, y from their centre pixels.

    Its light, the moments along x and y, and half of the second moments. Sides of at most 64 pixels.

    Raises:
        ValueError: larger ones.
    """
    if plane.shape[-1] > _LARGEST_PLANE or plane.shape[-1] != plane.shape[-2]:
        raise ValueError(f"planes of {plane.shape[-2:]} pixels")
    out = np.empty((len(plane), 4), np.float32)
    given = np.ascontiguousarray(plane), np.ascontiguousarray(place)
    sizes = ctypes.c_int64(len(plane)), ctypes.c_int64(plane.shape[-1])
    call("astroml_moments", given[0], *sizes, given[1], ctypes.c_float(width), out)
    return out


_LARGEST_PLANE = 64


def light(image: Array, weights: Array, place: Array, cells: int) -> Array:
    """(n, w + cells²): sums of the bands together (over the root of their number) under weights, and in square cells.

    Args:
        image: (n, band, side, side).
        weights: (w, side²) float32.
        place: (side,) int64, number of the cell of a row or column; below 0: of none.
        cells: along a side.
    """
    out = np.empty((len(image), len(weights) + cells**2), np.float32)
    pixels, own = planes(image, np.float32)
    factor = ctypes.c_float(image.shape[1] ** -0.5)
    call(
        "astroml_light",
        *(ctypes.byref(pixels), ctypes.byref(Shape(*image.shape)), weights, ctypes.c_int64(len(weights))),
        *(place, ctypes.c_int64(cells), factor, out),
    )
    del own
    return out


@dataclass(frozen=True)
class CentreWindow:
    """The window about the centre that `centre_plane` reads, and its weights, as `cutouts.centring` has them."""

    half: int
    """Half of the window's side, pixels."""
    step: int
    """Every so many pixels of rim and variance are asked."""
    core: float
    """Pixels about the centre that must be valid in a band."""
    noise: float
    """Noise of the light under `band_weight` of pixels of noise 1."""
    band_weight: Array
    """(side²,) weight of the S/N of a band."""
    moments: Array
    """(4, side²) weights of the sums."""


def centre_plane(
    image: Array, variance: Array | None, valid: Array | None, window: CentreWindow
) -> tuple[Array, Array, Array]:
    """The bands together about the centre (n, side, side), noise of its pixels (n,), sums of it under weights (n, 4).

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(image, variance, valid)
    count, side = len(image), 2 * window.half + 1
    plane, noise = np.empty((count, side, side), np.float32), np.empty(count, np.float32)
    sums = np.empty((count, 4), np.float32)
    pixels, own = planes(image, np.float32)
    spread, known = planes(variance, np.float32)
    mask, marks = valid_planes(valid)
    weights = (address(window.band_weight), address(window.moments))
    centre = _Centre(window.half, window.step, window.core, window.noise, *weights)
    call(
        "astroml_plane",
        *(ctypes.byref(pixels), ctypes.byref(spread), ctypes.byref(mask), ctypes.byref(Shape(*image.shape))),
        *(ctypes.byref(centre), plane, noise, sums),
    )
    del own, known, marks
    return plane, noise, sums


# ---- what PSF images need ----------------------------------------------------------------------------------------


def psf_rings(psf: Array, rings: int) -> tuple[Array, Array, Array]:
    """Sums, and counts of pixels that are not 0, (n, band, rings) by square ring about the centre; peaks (n, band)."""
    shape = (*psf.shape[:2], rings)
    sums, counts, peak = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape[:2], np.float32)
    pixels, own = planes(psf, np.float32)
    call(
        "astroml_rings",
        *(ctypes.byref(pixels), ctypes.byref(Shape(*psf.shape)), ctypes.c_int64(rings), sums, counts, peak),
    )
    del own
    return sums, counts, peak


def unit_psf(psf: Array, along: Sequence[Array]) -> tuple[Array, Array, Array]:
    """PSFs of unit sum, 0 where there is none; (n, band) bool of usable ones; (n * band, 2) centre of light x, y.

    Args:
        psf: of any sum.
        along: weights along y and along x, under which the light is centred.
    """
    out, good = np.empty(psf.shape, np.float32), np.empty(psf.shape[:2], bool)
    place = np.empty((psf.shape[0] * psf.shape[1], 2), np.float32)
    pixels, own = planes(psf, np.float32)
    call("astroml_unit_psf", ctypes.byref(pixels), ctypes.byref(Shape(*psf.shape)), *along, out, good, place)
    del own
    return out, good, place


def psf_core(psf: Array, half: tuple[int, int], part: float) -> Array:
    """(n, band, 15) float64: sums over the pixels above a part of the peak, at most `half` pixels y, x from the centre.

    The ten powers of `cutouts.psf`, four of them times the logarithm of the light over the peak, the peak.
    """
    out = np.empty((*psf.shape[:2], 15))
    pixels, own = planes(psf, np.float32)
    shape = ctypes.byref(Shape(*psf.shape))
    call("astroml_core", ctypes.byref(pixels), shape, np.array(half, np.int64), ctypes.c_float(part), out)
    del own
    return out
