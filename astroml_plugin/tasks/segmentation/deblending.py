"""Close companions: a second look at what is left when each object's own light, turned by half a turn, is taken off.

Stars and most galaxies look the same after half a turn about their centre (Lupton's deblender builds templates on it;
Melchior et al. 2018). What stands out on one side only, one to two PSF widths from the centre, is someone else's light.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from astroml_plugin.core.typing import F32, F64, I64, Bool
from astroml_plugin.tasks.segmentation.peaks import around

_FAR = 3.0
"""PSF widths from a peak that are looked at, and 2 pixels: the annulus, and the filter's width around it."""

_BATCH = 1024
"""Peaks whose surroundings are in memory at once."""

_SUMMIT = 5
"""Side in pixels of the square that a companion is the highest in."""

_NEAR = 1.5
"""PSF widths from a companion within which light is divided between it and its parent."""

_SHARP = 0.5
"""Width of the filter before light is divided, PSF widths: a wider one carries the parent's light to its companion."""

_MOST = 2
"""Pixels between a peak and its object's centre, at most, in x and in y."""

_STEPS = 8
_SIGMAS = 2.3548


@dataclass(frozen=True)
class Companions:
    """Companions, k in all, at most one per parent, in order of their parents."""

    row: I64
    """(k,) pixel of the peak of the light that is left."""
    column: I64
    """(k,)"""
    parent: I64
    """(k,) number of the peak that it was found beside."""
    snr: F64
    """(k,) S/N of the light that is left, in a Gaussian of the PSF's width."""

    def where(self, allowed: Bool) -> Companions:
        """Companions whose pixel is True in a map (h, w)."""
        inside = allowed[self.row, self.column]
        return Companions(self.row[inside], self.column[inside], self.parent[inside], self.snr[inside])


def find_companions(
    image: F32,
    variance: F32,
    peak: tuple[I64, I64],
    fwhm: F64,
    *,
    least: float,
    lopsided: float,
    annulus: tuple[float, float] = (0.9, 2.2),
) -> Companions:
    """Find the companions of n objects.

    Args:
        image: (h, w), background taken off; unusable pixels 0.
        variance: (h, w) of its noise; infinite where a pixel cannot be used.
        peak: rows and columns of n objects.
        fwhm: (n,) of the PSF at each, pixels.
        least: S/N of what is left.
        lopsided: part of an object's light that may differ between its sides; added to the noise.
        annulus: distances from the parent's centre, in FWHM.
    """
    row, column = np.zeros(len(fwhm), np.int64), np.zeros(len(fwhm), np.int64)
    snr = np.zeros(len(fwhm))
    for part in _alike(fwhm, _bright(image, variance, peak, least)):
        look = _turned(image, variance, (peak[0][part], peak[1][part]), float(fwhm[part[0]]))
        row[part], column[part], snr[part] = _best(look, lopsided, annulus)
    candidates = _unclaimed(row, column, np.flatnonzero(snr > least), peak, fwhm)
    candidates = _once(row, column, snr, candidates, fwhm)
    return Companions(row[candidates], column[candidates], candidates, snr[candidates])


def parts_of(
    image: F32,
    variance: F32,
    peak: tuple[I64, I64],
    fwhm: F64,
    companions: Companions,
) -> tuple[I64, I64, I64, F32]:
    """Part of the light that is a companion's, in the pixels within `_NEAR` PSF widths of it, the clearest last.

    Args:
        image, variance, peak, fwhm: the arguments of `find_companions`.
        companions: its result.

    Returns:
        Numbers of companions, rows, columns and parts (m,) from 0 to 1. Pixels may occur more than once.
    """
    if not len(companions.row):
        none = np.zeros(0, np.int64)
        return none, none, none, np.zeros(0, np.float32)
    width = fwhm[companions.parent]
    batches = [
        _parts(image, variance, peak, width, companions, part) for part in _alike(width, np.arange(len(companions.row)))
    ]
    number, row, column, share = (np.concatenate(items) for items in zip(*batches, strict=True))
    order = np.argsort(companions.snr[number], kind="stable")
    return number[order], row[order], column[order], share[order]


def _parts(
    image: F32,
    variance: F32,
    peak: tuple[I64, I64],
    width: F64,
    companions: Companions,
    some: I64,
) -> tuple[I64, I64, I64, F32]:
    """Numbers, rows, columns and parts (m,) as `parts_of` gives them, for some companions of one PSF width."""
    parent, fwhm = companions.parent[some], float(width[some[0]])
    look = _turned(image, variance, (peak[0][parent], peak[1][parent]), fwhm, _SHARP)
    rows, columns = (
        at[:, None] + look.side - mine[some, None] for at, mine in zip(look.peak, (companions.row, companions.column))
    )
    close = np.hypot(rows[:, :, None], columns[:, None, :]) < _NEAR * fwhm
    number, down, right = np.nonzero(close & look.seen)
    left, turned = (np.maximum(plane[number, down, right], 0) for plane in (look.left, look.turned))
    row, column = look.peak[0][number] + down - look.half, look.peak[1][number] + right - look.half
    return some[number], row, column, left / np.maximum(left + turned, np.float32(1e-30))


def _alike(fwhm: F64, some: I64) -> Iterator[I64]:
    """Batches of `some` objects (numbers) that have one PSF width."""
    for width in np.unique(fwhm[some]):
        same = some[fwhm[some] == width]
        yield from (same[start : start + _BATCH] for start in range(0, len(same), _BATCH))


def _bright(image: F32, variance: F32, peak: tuple[I64, I64], least: float) -> I64:
    """Numbers of the objects whose innermost 3 x 3 pixels have an S/N of `least`: others cannot outshine companions."""
    light, noise = (around(plane, peak, 1).astype(np.float64).sum((1, 2)) for plane in (image, variance))
    return np.flatnonzero((noise > 0) & (light > least * np.sqrt(noise)))


@dataclass(frozen=True)
class _Turned:
    """Surroundings of n peaks and their images after half a turn about the centres, filtered to the PSF's width."""

    peak: tuple[I64, I64]
    """(n,) rows, (n,) columns."""
    fwhm: float
    """FWHM of the PSF at all peaks, pixels."""
    x: F32
    """(n,) centre relative to the peak's pixel."""
    y: F32
    left: F32
    """(n, k, k) light that the turned image does not have."""
    turned: F32
    """(n, k, k) light of the turned image."""
    spread: F32
    """(n, k, k) variance of `left`."""
    good: Bool
    """(n, k, k) pixels that can be used."""
    seen: Bool
    """(n, k, k) pixels that can be used on both sides."""

    @property
    def half(self) -> int:
        """Pixels from a peak to the border of its surroundings."""
        return int(self.left.shape[-1] // 2)

    @property
    def side(self) -> I64:
        """(k,) pixels from the peak."""
        return np.arange(-self.half, self.half + 1)


def _turned(
    image: F32,
    variance: F32,
    peak: tuple[I64, I64],
    fwhm: float,
    width: float = 1.0,
) -> _Turned:
    """Surroundings of peaks, filtered with a Gaussian `width` times as wide as the PSF."""
    half = int(np.ceil(_FAR * fwhm)) + _MOST
    side = np.arange(-half, half + 1, dtype=np.float32)
    light, noise = around(image, peak, half), around(variance, peak, half)
    x, y = _centre(light, side, fwhm)
    up, across = _mirror(side, 2 * y), _mirror(side, 2 * x).transpose(0, 2, 1)
    good = np.isfinite(noise) & _within(image.shape, peak, side.astype(np.int64))
    there = np.abs(up.sum(2) - 1)[:, :, None] + np.abs(across.sum(1) - 1)[:, None, :] < 1e-3  # has another side
    seen = good & there
    if not good.all():
        seen &= up @ (~good).astype(np.float32) @ across == 0
        noise = np.where(good, noise, np.float32(0))
    turned = up @ light @ across
    both = np.where(seen, noise + np.maximum(up @ noise @ across, 0), np.float32(0))
    kernel = np.exp(-0.5 * ((side[:, None] - side) / np.float32(width * fwhm / _SIGMAS)) ** 2)
    left = kernel @ np.where(seen, light - turned, np.float32(0)) @ kernel
    turned = kernel @ np.where(seen, turned, np.float32(0)) @ kernel
    return _Turned(peak, fwhm, x, y, left, turned, kernel**2 @ both @ kernel**2, good, seen)


def _within(shape: tuple[int, ...], peak: tuple[I64, I64], side: I64) -> Bool:
    """(n, k, k) pixels about peaks that the image has."""
    rows, columns = ((at[:, None] + side >= 0) & (at[:, None] + side < most) for at, most in zip(peak, shape))
    return rows[:, :, None] & columns[:, None, :]


def _best(look: _Turned, lopsided: float, annulus: tuple[float, float]) -> tuple[I64, I64, F32]:
    """Row, column and S/N of the place beside each peak where most is left; S/N is 0 where nothing is."""
    snr = look.left / np.sqrt(np.maximum(look.spread + (np.float32(lopsided) * look.turned) ** 2, np.float32(1e-30)))
    x, y = (look.side.astype(np.float32) - at[:, None] for at in (look.x, look.y))
    distance = np.sqrt(x[:, None, :] ** 2 + y[:, :, None] ** 2) / look.fwhm
    summit = look.left >= ndimage.maximum_filter(look.left, (1, _SUMMIT, _SUMMIT))  # not the wing of a third object
    whole = ~((distance < 1) & ~look.good).any((1, 2), keepdims=True)  # half a saturated star is not like the other
    snr = np.where((distance >= annulus[0]) & (distance <= annulus[1]) & look.seen & summit & whole, snr, 0)
    flat = snr.reshape(len(snr), -1)
    best = flat.argmax(1)
    down, right = np.unravel_index(best, snr.shape[1:])
    return look.peak[0] + down - look.half, look.peak[1] + right - look.half, flat[np.arange(len(flat)), best]


def _centre(light: F32, side: F32, fwhm: float) -> tuple[F32, F32]:
    """x and y of centres relative to the peaks: centroids in a Gaussian window of the PSF's width that follows them."""
    x, y = np.zeros(len(light), np.float32), np.zeros(len(light), np.float32)
    sigma = np.float32(fwhm / _SIGMAS)
    for _ in range(_STEPS):
        across, up = (np.exp(-0.5 * ((side - at[:, None]) / sigma) ** 2) for at in (x, y))
        columns, rows = (up[:, None, :] @ light)[:, 0] * across, (light @ across[:, :, None])[:, :, 0] * up
        total = columns.sum(1)
        total = np.where(total > 0, total, np.inf)
        x, y = (
            np.clip(at + 2 * ((sums * (side - at[:, None])).sum(1) / total), -_MOST, _MOST).astype(np.float32)
            for at, sums in ((x, columns), (y, rows))
        )
    return x, y


def _mirror(side: F32, twice: F32) -> F32:
    """(n, k, k) matrices that mirror a row of pixels about `twice` / 2: cubic convolution (Keys 1981)."""
    far = np.abs(twice[:, None, None] - side[:, None] - side)
    inner = (1.5 * far - 2.5) * far**2 + 1
    outer = ((-0.5 * far + 2.5) * far - 4) * far + 2
    return np.where(far < 1, inner, np.where(far < 2, outer, 0)).astype(np.float32)


def _unclaimed(row: I64, column: I64, candidates: I64, peak: tuple[I64, I64], fwhm: F64) -> I64:
    """Candidates that no other object explains: nearer to their parent than to any other, and not close to one."""
    if not len(candidates):
        return candidates
    tree = KDTree(np.stack([peak[1], peak[0]], axis=1))
    distance, nearest = tree.query(np.stack([column[candidates], row[candidates]], axis=1))
    values: I64 = candidates[(nearest == candidates) & (distance >= 0.7 * fwhm[candidates])]
    return values


def _once(row: I64, column: I64, snr: F64, candidates: I64, fwhm: F64) -> I64:
    """Candidates without the less certain one of each pair that is closer than a PSF width."""
    if len(candidates) < 2:
        return candidates
    tree = KDTree(np.stack([column[candidates], row[candidates]], axis=1))
    close = tree.query_pairs(float(fwhm[candidates].max()), output_type="ndarray")
    keep = np.ones(len(candidates), bool)
    for first, second in close:
        a, b = candidates[first], candidates[second]
        if np.hypot(row[a] - row[b], column[a] - column[b]) < min(fwhm[a], fwhm[b]):
            keep[second if (snr[a], -a) > (snr[b], -b) else first] = False
    return candidates[keep]
