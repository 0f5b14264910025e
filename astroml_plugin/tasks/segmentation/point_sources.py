"""Total light of stars: the PSF that is known says how much of it a Gaussian misses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.tasks.segmentation.gaussian_fluxes import PointSources, PsfPicture, fit_gaussians, recentred

_PAD = 16
"""Pixels around a PSF image, so that the fit has room."""

_RIM = 4
"""Pixels of nothing around the picture of a PSF."""

_CENTRINGS = 3
"""Times that the centre of a PSF image is improved: each moves it by at most 1.5 pixels."""

_RINGS = (0.5, 0.75, 1.0)
"""Edges of two rings, in half-sides of the PSF image, from which the light beyond the image is foreseen."""

_STEEPEST, _FLATTEST = 8.0, 2.4
"""Slopes of the wings, profile ~ radius^-slope: a steeper one has no light outside, a flatter one is taken for this."""

_NORMAL = 1.4826
"""Standard deviation over the median of absolute values of normal noise."""

_UNSURE = 0.0004
"""Relative error of the total of a star that no noise explains: pixels, phases and centres."""

_BEYOND_UNSURE = 0.25
"""Part of the light foreseen beyond the PSF image that counts as its error."""


@dataclass(frozen=True)
class PointProfile:
    """A PSF as the Gaussian fit sees it."""

    square: float
    """σ² in pixels² of the Gaussian that fits it."""
    gain: float
    """Total light over the flux of that Gaussian."""
    error: float
    """Relative error of `gain`."""
    picture: PsfPicture | None = None
    """The PSF itself."""


_NOTHING = PsfPicture(np.zeros((3, 3)), (1.0, 1.0))

NO_PROFILE = PointProfile(np.nan, np.nan, np.nan)
"""For a PSF that is not known or cannot be fitted."""


def point_profile(psf: NDArray[np.floating]) -> PointProfile:
    """Fit a PSF image (py, px) of any sum as a star is fitted, and foresee the light beyond the image."""
    image = np.nan_to_num(np.asarray(psf, np.float64))
    total = image.sum()
    if not total > 0:
        return NO_PROFILE
    row, column = np.indices(image.shape)
    centre = ((image * column).sum() / total, (image * row).sum() / total)
    padded = np.pad(image / total, _PAD).astype(np.float32)
    even = np.full(padded.shape, 1e-14, np.float32)
    nothing = np.zeros(padded.shape, np.int32), np.ones(1, np.int64)
    place = np.array([centre[0] + _PAD]), np.array([centre[1] + _PAD])
    for _ in range(_CENTRINGS):
        place = recentred(padded, even, place, *nothing)
    fitted = fit_gaussians(padded, even, place, *nothing)
    flux = float(fitted.flux[0])
    if not 0.3 < flux < 1.5:
        return NO_PROFILE
    centre = (float(place[0][0]) - _PAD, float(place[1][0]) - _PAD)
    beyond = _light_beyond(image / total, centre)
    unsure = _UNSURE, _BEYOND_UNSURE * beyond, _sky_taken(image / total, centre), _noise_of_sum(image / total, centre)
    error = float(np.sqrt(np.square(unsure).sum()))
    picture = PsfPicture(
        ndimage.spline_filter(np.pad(image, 2)) / (total * (1 + beyond)), (centre[0] + 2, centre[1] + 2)
    )
    return PointProfile(float(fitted.sigma[0]) ** 2, (1 + beyond) / flux, error, picture)


def _sky_taken(image: F64, centre: tuple[float, float]) -> float:
    """Light that a PSF image of unit sum lacks at least, because its outer part lies below zero."""
    half = (min(image.shape) - 1) / 2
    row, column = np.indices(image.shape)
    outer = image[np.hypot(column - centre[0], row - centre[1]) >= _RINGS[-2] * half]
    return float(max(0.0, -outer.mean()) * image.size) if outer.size else 0.0


def _noise_of_sum(image: F64, centre: tuple[float, float]) -> float:
    """Noise of the sum of a PSF image of unit sum, from second differences of pixels along rows in its outer part."""
    half = (min(image.shape) - 1) / 2
    row, column = np.indices(image.shape)
    outer = np.hypot(column - centre[0], row - centre[1]) >= _RINGS[-2] * half
    bends = (2 * image[:, 1:-1] - image[:, :-2] - image[:, 2:])[outer[:, 1:-1]]
    return float(_NORMAL * np.median(np.abs(bends)) / np.sqrt(6) * np.sqrt(image.size)) if bends.size else 0.0


def _light_beyond(image: F64, centre: tuple[float, float]) -> float:
    """Light outside a PSF image of unit sum: a power law through the means of two rings, from the image's edge on."""
    half = (min(image.shape) - 1) / 2
    row, column = np.indices(image.shape)
    radius = np.hypot(column - centre[0], row - centre[1])
    edges = [part * half for part in _RINGS]
    rings = [(radius >= low) & (radius < high) for low, high in pairwise(edges)]
    if min(ring.sum() for ring in rings) < 8:
        return 0.0
    inner, outer = (float(image[ring].mean()) for ring in rings)
    near, far = (float(radius[ring].mean()) for ring in rings)
    if inner <= 0 or outer <= 0:
        return 0.0
    slope = np.log(inner / outer) / np.log(far / near)
    if slope > _STEEPEST:
        return 0.0
    slope = max(slope, _FLATTEST)
    circle = 2 * np.pi * outer * (far / half) ** slope * half**2 / (slope - 2)
    corners = float(image[radius > half].sum())
    return float(max(0.0, circle - corners))


def point_sources(profiles: list[PointProfile], cell: NDArray[np.intp], is_star: Bool) -> PointSources:
    """Describe the stars among n objects to the fit.

    Args:
        profiles: those of the field's PSFs.
        cell: (n,) number of the profile at each object.
        is_star: (n,) whether an object is a point source; one whose PSF is not known has the wings of any PSF.
    """
    square, gain, error = (
        np.array([getattr(profile, name) for profile in profiles])[cell] for name in ("square", "gain", "error")
    )
    pictures = tuple(profile.picture or _NOTHING for profile in profiles)
    known = np.isfinite(gain)
    return PointSources(is_star & known, square, gain, error, is_star & ~known, cell, pictures)
