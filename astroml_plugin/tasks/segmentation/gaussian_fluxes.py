"""Total fluxes: round Gaussians fitted to all objects of a patch of light together, and the light in their wings.

Sizes are adaptive moments (Bernstein & Jarvis 2002), amplitudes least squares with each near neighbour of the same
patch fitted along. What two Gaussians share is known in closed form, so that a blend costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from astroml_plugin.core.typing import F32, F64, I32, I64, Bool
from astroml_plugin.tasks.segmentation.peaks import in_patches

_Cut = tuple[slice, F32, F32]

TYPICAL, _TYPICAL_STAR = 2.0, 1.6
"""Sigma in pixels of a faint object, PSF included, and of a faint star whose PSF is not known."""

_TRUST, _TRUST_PSF = 3.0, 10.0
"""S/N at which an object's own size counts as much as `TYPICAL`, and a star's as much as the PSF's."""

_HALF = 14
"""Half-side in pixels of what is fitted."""

_NEAR = 14.0
"""Pixels within which objects of one patch are fitted together."""

_WIDER = 2.2
"""Sigma of the Gaussian that looks for light in the wings, over that of the object."""

_CORE, _SLOPE = 0.12, 2.0
_WINGS = 0.06, 0.03
"""Total over Gaussian flux - 1 is `_CORE` + `_SLOPE` x wings, where wings are what the wider Gaussian sees beside the
model, in units of its flux: these numbers, and the mean and spread of the wings, are those of isolated stars and Sersic
galaxies of n 0.5-4 on simulated fields (seeds 500-507). The fainter an object, the more its wings are the mean ones."""

_SLOPE_STAR, _WINGS_STAR, _PSFS = 4.0, (0.025, 0.016), 0.6
"""For a star whose PSF is not known: the slope without a core, the mean and the spread of the wings, and the error of
the total in units of the wings. A Gaussian has no wings and nothing to add. Moffat profiles of beta 4.77, 3.5 and 2.5
have wings of 0.021, 0.030 and 0.045, and 0.070, 0.11 and 0.19 to add; Kolmogorov's 0.022 and 0.10 (FWHM 2.5 to 5)."""

_RESIDUAL = 0.15
"""Part of a neighbour's flux that its own model leaves in the wings."""

_SMALLEST, _LARGEST = 0.8, 8.0
"""Sigma in pixels."""

_STEPS, _SWEEPS = 6, 12
"""Times that sizes, and within each of them fluxes, are improved."""

_RECENTRINGS, _CERTAIN, _FARTHEST = 3, 15.0, 1.5
"""Steps of a centre; S/N at which half of its move counts; pixels that it may move."""

_BATCH, _HELD = 4096, 16384
"""Objects whose pixels are cut together, and number of objects up to which pixels are held from step to step."""


@dataclass(frozen=True)
class GaussianFluxes:
    """Fluxes and sizes of the Gaussians fitted to n objects; NaN where no pixel can be used."""

    flux: F64
    """(n,) flux of the Gaussian, in the image's units."""
    error: F64
    """(n,) standard error of `flux` at this size."""
    sigma: F64
    """(n,) σ of the Gaussian in pixels, PSF included."""
    total: F64
    """(n,) flux with the wings of a galaxy or a star."""
    unsure: F64
    """(n,) relative error of `total` beyond noise, because wings are not known exactly."""
    is_star: Bool
    """(n,) whether an object has the wings of the PSF."""

    def total_error(self, profiles: F64) -> F64:
        """Standard error (n,) of `total`: noise of flux and size, and unknown wings and profiles.

        Args:
            profiles: (n,) relative spread of totals among objects that are no stars.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = np.maximum(self.flux, 0) / self.error
            gain = np.where(self.is_star, self.total / self.flux, 1.0)
            free = np.where(self.is_star, snr / (snr + _TRUST_PSF), 1.0)  # how far the size is the object's own
        noise = gain * np.sqrt(1 + free**2) * self.error
        relative = np.where(self.is_star, self.unsure, np.hypot(profiles, self.unsure))
        values: F64 = np.hypot(noise, relative * self.total)
        return values


@dataclass(frozen=True)
class PsfPicture:
    """A PSF that can be drawn at any place."""

    spline: F64
    """(py, px) cubic spline of the image; its sum, with the light beyond the image, is 1."""
    centre: tuple[float, float]
    """x and y in the image of the light under its Gaussian."""


@dataclass(frozen=True)
class PointSources:
    """Stars among n objects, and how a star at their places is fitted."""

    is_star: Bool
    """(n,) whether an object is a star whose PSF is known."""
    square: F64
    """(n,) σ² in pixels² of the PSF's Gaussian."""
    gain: F64
    """(n,) total light over the flux of that Gaussian."""
    error: F64
    """(n,) relative error of `gain`."""
    unknown: Bool
    """(n,) stars whose PSF is not known, which are not in `is_star`."""
    cell: NDArray[np.intp]
    """(n,) number of the picture of the PSF at each object."""
    pictures: tuple[PsfPicture, ...]
    """Pictures of the field's PSFs."""


@dataclass(frozen=True)
class Pairs:
    """Objects of one patch that are near each other, m of them, each pair both ways round."""

    mine: I64
    other: I64
    square: F64
    """Distance squared, pixels²."""


def fit_gaussians(
    image: F32,
    variance: F32,
    centre: tuple[F64, F64],
    labels: I32,
    patch: I64,
    stars: PointSources | None = None,
) -> GaussianFluxes:
    """Fit round Gaussians to all objects of a field in one band.

    Args:
        image, variance: (h, w) of one band; pixels of variance 0 are not used.
        centre: x and y of n objects, pixels.
        labels: (h, w) 0 background, else the object's number plus 1: pixels of other patches are not used.
        patch: (n,) number of the patch of light that each object is in.
        stars: objects that are drawn towards the width of the PSF and have its wings, or those of usual PSFs where it
            is not known; None: no object is a star.
    """
    count = len(centre[0])
    is_star = np.zeros(count, bool) if stars is None else stars.is_star
    usual = np.full(count, TYPICAL**2)
    if stars is not None:
        usual = np.where(is_star, stars.square, np.where(stars.unknown, _TYPICAL_STAR**2, usual))
    trust = np.where(is_star, _TRUST_PSF, _TRUST)
    square = usual
    pairs, pixels = near_pairs(centre, patch), _Pixels(image, variance, centre, labels, patch)
    for step in range(_STEPS):
        light, moment, norm, noise = pixels.products(square)
        shared, shared_moment = _overlaps(pairs, square)
        flux = _solved(light, norm, pairs, shared)
        theirs = np.maximum(flux, 0)[pairs.other]
        if step < _STEPS - 1:
            alone = light - np.bincount(pairs.mine, shared * theirs, count)
            moment -= np.bincount(pairs.mine, shared_moment * theirs, count)
            square = _resized(square, alone, moment, usual, trust * noise)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(norm > 0, noise / norm, np.nan) * _spread(pairs, shared, norm, count)
        total, unsure = _with_wings(_wings(pixels, pairs, square, flux, error), flux, stars)
    if stars is not None:
        total, unsure = np.where(is_star, flux * stars.gain, total), np.where(is_star, stars.error, unsure)
    return GaussianFluxes(np.where(norm > 0, flux, np.nan), error, np.sqrt(square), total, unsure, is_star)


def recentred(
    image: F32,
    variance: F32,
    centre: tuple[F64, F64],
    labels: I32,
    patch: I64,
    stars: PointSources | None = None,
) -> tuple[F64, F64]:
    """Centres x and y (n,) of the light under each object's Gaussian, where it is brighter than noise moves it.

    The first moments of what neighbours leave move a centre; the fainter an object, the more it stays where it was. No
    centre moves by more than `_FARTHEST`. Arguments as for `fit_gaussians`.
    """
    fitted = fit_gaussians(image, variance, centre, labels, patch, stars)
    square, flux = fitted.sigma**2, np.maximum(np.nan_to_num(fitted.flux), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.nan_to_num(flux / fitted.error)
    weight = snr**2 / (snr**2 + _CERTAIN**2)
    current = centre
    for _ in range(_RECENTRINGS):
        pairs, pixels = near_pairs(current, patch), _Pixels(image, variance, current, labels, patch)
        light, moments = pixels.moments(square)
        shared, _ = _overlaps(pairs, square)
        theirs = shared * flux[pairs.other]
        alone = light - np.bincount(pairs.mine, theirs, len(flux))
        part = square[pairs.mine] / (square[pairs.mine] + square[pairs.other])
        moved = []
        for at, before, moment in zip(current, centre, moments, strict=True):
            away = (at[pairs.other] - at[pairs.mine]) * part
            rest = moment - np.bincount(pairs.mine, theirs * away, len(flux))
            step = np.where(alone > 0.2 * light, 2 * rest / np.where(alone > 0, alone, 1), 0)
            moved.append(before + np.clip(at + np.clip(step, -0.5, 0.5) - before, -_FARTHEST, _FARTHEST))
        current = (moved[0], moved[1])
    return tuple(before + weight * (at - before) for before, at in zip(centre, current, strict=True))  # type: ignore[return-value]


def wide_gaussian(place: tuple[F64, F64], sigma: F64, flux: F64, total: F64) -> F64:
    """(m, k, k) light of objects as they are fitted: the Gaussian, and the rest of their total in a wider one.

    Args:
        place: columns and rows (m, k) minus the centre.
        sigma, flux, total: (m,) of the objects.
    """
    light = np.zeros((len(sigma), place[1].shape[1], place[0].shape[1]))
    for width, part in ((sigma, flux), (_WIDER * sigma, total - flux)):
        x, y = (np.exp(-0.5 * (at / width[:, None]) ** 2) for at in place)
        light += (part / (2 * np.pi * width**2))[:, None, None] * y[:, :, None] * x[:, None, :]
    return light


def _with_wings(seen: tuple[F64, F64], flux: F64, stars: PointSources | None) -> tuple[F64, F64]:
    """Totals (n,) of galaxies, and of stars whose PSF is not known, and their relative errors, from wings as seen."""
    wings, spread = _expected(*seen, _WINGS)
    total, unsure = flux * (1 + _CORE + _SLOPE * wings), _SLOPE * spread
    if stars is None or not stars.unknown.any():
        return total, unsure
    wings, spread = _expected(*seen, _WINGS_STAR)
    added = np.maximum(_SLOPE_STAR * wings, 0)
    alone = flux * (1 + added), np.hypot(_SLOPE_STAR * spread, _PSFS * wings) / (1 + added)
    return np.where(stars.unknown, alone[0], total), np.where(stars.unknown, alone[1], unsure)


def _expected(wings: F64, certain: F64, usual: tuple[float, float]) -> tuple[F64, F64]:
    """Mean (n,) of wings seen with a certainty and the usual ones, weighted by their errors, and its error."""
    mean, weight = usual[0], 1 / usual[1] ** 2
    return (mean * weight + wings * certain) / (weight + certain), 1 / np.sqrt(weight + certain)


def _wings(pixels: _Pixels, pairs: Pairs, square: F64, flux: F64, error: F64) -> tuple[F64, F64]:
    """Light (n,) beside the models in units of the flux, as seen, and one over the square of its error (n,)."""
    wide, model, noise = pixels.wings(square)
    both = _WIDER**2 * square[pairs.mine] + square[pairs.other]
    theirs = (
        _WIDER**2 * square[pairs.mine] / both * np.exp(-0.5 * pairs.square / both) * np.maximum(flux, 0)[pairs.other]
    )
    rest = wide - model * flux - np.bincount(pairs.mine, theirs, len(flux))
    left = np.bincount(pairs.mine, (_RESIDUAL * theirs) ** 2, len(flux))
    unit = np.maximum(flux, error)
    return np.clip(rest / unit, -1, 1), unit**2 / (noise**2 + left)


def _resized(square: F64, light: F64, moment: F64, usual: F64, trusted: F64) -> F64:
    """σ² (n,) in pixels² that the weighted moments ask for, drawn to the usual σ² by `trusted` light."""
    typical = usual * square / (usual + square)
    total = np.maximum(light, 0) + trusted
    seen = np.where(total > 0, (np.where(light > 0, moment, 0) + trusted * typical) / np.maximum(total, 1e-30), typical)
    inverse = 1 / np.maximum(seen, 1e-6) - 1 / square
    return np.clip(1 / np.maximum(inverse, 1 / _LARGEST**2), _SMALLEST**2, _LARGEST**2)


def near_pairs(centre: tuple[F64, F64], patch: I64) -> Pairs:
    """Pairs of n objects, at x and y, of one patch within `_NEAR` pixels of each other."""
    place = in_patches(*centre, patch)
    close = KDTree(place).query_pairs(_NEAR, output_type="ndarray") if len(place) else np.zeros((0, 2), np.int64)
    mine, other = np.concatenate([close, close[:, ::-1]]).T
    order = np.lexsort((other, mine))
    mine, other = mine[order], other[order]
    return Pairs(mine, other, sum((at[mine] - at[other]) ** 2 for at in centre))


def _overlaps(pairs: Pairs, square: F64) -> tuple[F64, F64]:
    """(m,) sums over the plane of g_i g_j and of g_i g_j r_i² / 2, for Gaussians of unit flux."""
    mine, both = square[pairs.mine], square[pairs.mine] + square[pairs.other]
    shared = np.exp(-0.5 * pairs.square / both) / (2 * np.pi * both)
    return shared, shared * (mine * square[pairs.other] / both + 0.5 * (mine / both) ** 2 * pairs.square)


def _solved(light: F64, norm: F64, pairs: Pairs, shared: F64) -> F64:
    """Fluxes (n,) with which all Gaussians together explain the light: steps that cannot overshoot, patch by patch."""
    count = len(light)
    scale = norm + np.bincount(pairs.mine, shared, count)
    flux = np.where(scale > 0, light / np.maximum(norm, 1e-30), 0) if not len(pairs.mine) else np.zeros(count)
    for _ in range(_SWEEPS if len(pairs.mine) else 1):
        rest = light - norm * flux - np.bincount(pairs.mine, shared * flux[pairs.other], count)
        flux = flux + np.where(scale > 0, rest / np.maximum(scale, 1e-30), 0)
    return flux


def _spread(pairs: Pairs, shared: F64, norm: F64, count: int) -> F64:
    """(n,) factor on errors because neighbours are fitted along."""
    both = norm[pairs.mine] * norm[pairs.other]
    square = np.bincount(pairs.mine, shared**2 / np.maximum(both, 1e-30), count)
    return 1 / np.sqrt(np.clip(1 - square, 0.1, 1))


def _twice(plane: F32, x: F32, y: F32) -> F64:
    """(n,) sums of (n, k, k) pixels times x (n, k) along rows and y (n, k) along columns."""
    summed: F64 = (np.matmul(plane, x[..., None])[..., 0] * y).sum(1).astype(np.float64)
    return summed


class _Pixels:
    """The pixels about each object."""

    def __init__(
        self,
        image: F32,
        variance: F32,
        centre: tuple[F64, F64],
        labels: I32,
        patch: I64,
    ) -> None:
        self.image, self.variance, self.labels = image, variance, labels
        self.centre, self.patch = centre, patch
        self._held = list(self._cut()) if len(patch) <= _HELD else None

    def _batches(self) -> Iterable[_Cut]:
        """Pixels about batches of objects, as `_cut` gives them; held in memory where objects are few."""
        return self._cut() if self._held is None else self._held

    def _cut(self) -> Iterator[_Cut]:
        """Objects, and (n, k, k) image and variance about each, 0 where a pixel is not used."""
        side = np.arange(-_HALF, _HALF + 1)
        height, width = self.image.shape
        patch_of = np.concatenate([[-1], self.patch])
        for start in range(0, len(self.patch), _BATCH):
            batch = slice(start, start + _BATCH)
            columns, rows = (np.floor(at[batch] + 0.5).astype(np.int64)[:, None] + side for at in self.centre)
            at = (rows.clip(0, height - 1) * width)[:, :, None] + columns.clip(0, width - 1)[:, None, :]
            inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
            label = self.labels.ravel()[at]
            used = inside & ((label == 0) | (patch_of[label] == self.patch[batch, None, None]))
            yield batch, self.image.ravel()[at] * used, self.variance.ravel()[at] * used

    def products(self, square: F64) -> tuple[F64, F64, F64, F64]:
        """Sums (n,) over pixels: g I, g r² I / 2, g², and the noise of the first, for Gaussians g of unit flux."""
        sums = np.zeros((4, len(square)))
        for batch, image, variance in self._batches():
            width = square[batch]
            x, y = (self._axis(at[batch], width) for at in self.centre)
            (gx, gxx), (gy, gyy) = x, y
            used = (variance > 0).astype(np.float32)
            first = np.matmul(image * used, np.stack([gx, gxx], axis=-1))
            light, across = first[..., 0], first[..., 1]
            sums[0, batch] = (light * gy).sum(1)
            sums[1, batch] = ((across * gy) + (light * gyy)).sum(1) / 2
            sums[2, batch] = _twice(used, gx**2, gy**2)
            sums[3, batch] = np.sqrt(_twice(variance, gx**2, gy**2))
        return sums[0], sums[1], sums[2], sums[3]

    def moments(self, square: F64) -> tuple[F64, tuple[F64, F64]]:
        """Sums (n,) over pixels of g I, and of g I (x - centre) and g I (y - centre), for Gaussians g of unit flux."""
        sums = np.zeros((3, len(square)))
        for batch, image, variance in self._batches():
            (gx, _), (gy, _) = (self._axis(at[batch], square[batch]) for at in self.centre)
            used = image * (variance > 0)
            across, along = (self._offset(at[batch]) for at in self.centre)
            sums[0, batch] = _twice(used, gx, gy)
            sums[1, batch] = _twice(used, gx * across, gy)
            sums[2, batch] = _twice(used, gx, gy * along)
        return sums[0], (sums[1], sums[2])

    @staticmethod
    def _offset(at: F64) -> F32:
        """(n, k) pixels from each centre along one axis."""
        offset = np.floor(at + 0.5)[:, None] + np.arange(-_HALF, _HALF + 1) - at[:, None]
        return offset.astype(np.float32)

    def wings(self, square: F64) -> tuple[F64, F64, F64]:
        """Sums (n,) of G I and G g, and the noise of the first: a wider Gaussian G of height 1 looks at all light."""
        sums = np.zeros((3, len(square)))
        for batch, image, variance in self._batches():
            width = square[batch]
            (gx, _), (gy, _) = (self._axis(at[batch], width) for at in self.centre)
            wide = _WIDER**2 * width
            (wx, _), (wy, _) = (self._axis(at[batch], wide) for at in self.centre)
            wx, wy = (axis * np.sqrt(2 * np.pi * wide)[:, None].astype(np.float32) for axis in (wx, wy))
            used = (variance > 0).astype(np.float32)
            sums[0, batch] = _twice(image * used, wx, wy)
            sums[1, batch] = _twice(used, wx * gx, wy * gy)
            sums[2, batch] = np.sqrt(_twice(variance, wx**2, wy**2))
        return sums[0], sums[1], sums[2]

    @staticmethod
    def _axis(at: F64, square: F64) -> tuple[F32, F32]:
        """(n, k) Gaussian of unit sum along one axis about each object, and its product with the squared coordinate."""
        offset = np.floor(at + 0.5)[:, None] + np.arange(-_HALF, _HALF + 1) - at[:, None]
        gaussian = np.exp(-0.5 * offset**2 / square[:, None]) / np.sqrt(2 * np.pi * square[:, None])
        return gaussian.astype(np.float32), (gaussian * offset**2).astype(np.float32)
