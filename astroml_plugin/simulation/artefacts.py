"""False detections: painted in units of the noise of a pixel, each at the centre of its stamp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from astroml_plugin.core.typing import F32, Array

_SMOOTHED = 5  # pixels: side of the boxes, laid twice, under which a peak of the noise is looked for
_OBJECT = 0.7  # noise under these boxes, about seven sigma, that is an object
_BESIDE = 17  # pixels: side of the box about an object that peaks are kept away from


def artefact(rng: np.random.Generator, noise: F32, fwhm: float, names: Sequence[str] | None = None) -> tuple[str, F32]:
    """Kind of an artefact and a stamp with it at the centre pixel.

    Args:
        rng: of this stamp.
        noise: (size, size) of everything else, in units of the noise.
        fwhm: of the PSF, pixels.
        names: of the kinds that it may be (default: all).
    """
    names = names or sorted(KINDS)
    name = names[int(rng.integers(len(names)))]
    return name, KINDS[name](rng, noise, fwhm).astype(np.float32)


def _away(size: int) -> tuple[F32, F32]:
    """(size, size) y and x from the centre pixel."""
    y, x = (np.mgrid[:size, :size] - size // 2).astype(np.float32)
    return y, x


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _cosmic_ray(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """A track of one pixel's width: sharper than any PSF."""
    made, size = noise.copy(), len(noise)
    angle, length, peak = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 14), _log_uniform(rng, 10, 500)
    along = np.arange(-length / 2, length / 2 + 0.5, 0.5)
    y, x = (np.floor(size // 2 + 0.5 + along * turn).astype(int) for turn in (math.sin(angle), math.cos(angle)))
    inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    track = np.zeros_like(noise)
    track[y[inside], x[inside]] = peak
    made += track * rng.uniform(0.4, 1.0, noise.shape)
    return made


def _hot_pixels(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """One or two pixels."""
    made, middle = noise.copy(), len(noise) // 2
    made[middle, middle] += _log_uniform(rng, 10, 500)
    if rng.random() < 0.4:
        made[middle + int(rng.integers(-1, 2)), middle + 1] += _log_uniform(rng, 5, 100)
    return made


def _trail(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """A satellite: a straight line as wide as the PSF or wider, from rim to rim."""
    y, x = _away(len(noise))
    angle, width = rng.uniform(0, math.pi), math.hypot(fwhm / 2.355, rng.uniform(0, 2))
    across = x * math.sin(angle) - y * math.cos(angle) - rng.uniform(-0.5, 0.5)
    return noise + _log_uniform(rng, 3, 60) * np.exp(-0.5 * (across / width) ** 2)


def _bleed(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """Columns that a saturated star has filled, all at one level."""
    made, size = noise.copy(), len(noise)
    middle, width = size // 2, int(rng.integers(1, 5))
    up, down = (int(rng.integers(6, size)) for _ in range(2))
    if rng.random() < 0.5:
        up = int(rng.integers(0, 3))
    first = middle - width // 2
    made[max(0, middle - down) : middle + up + 1, first : first + width] = _log_uniform(rng, 200, 3000)
    return made.T if rng.random() < 0.3 else made


def _bad_line(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """A column or row of another level from rim to rim, or to the middle."""
    made, middle = noise.copy(), len(noise) // 2
    start = 0 if rng.random() < 0.6 else middle
    made[start:, middle] += _log_uniform(rng, 5, 80)
    return made.T if rng.random() < 0.5 else made


def _ghost(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """Light reflected within the telescope: a wide disk with a rim, often with a hole."""
    y, x = _away(len(noise))
    radius, angle = rng.uniform(6, 40), rng.uniform(0, 2 * math.pi)
    away = radius * rng.uniform(0.0, 1.0)
    distance = np.hypot(y - away * math.sin(angle), x - away * math.cos(angle))
    soft = rng.uniform(0.5, 3)
    disk = _inside(distance, radius, soft)
    if rng.random() < 0.5:
        disk -= rng.uniform(0.5, 1) * _inside(distance, radius * rng.uniform(0.3, 0.7), soft)
    return noise + rng.uniform(1.5, 10) * disk


def _inside(distance: F32, radius: float, soft: float) -> F32:
    """1 within a radius, 0 beyond, falling over a few `soft` pixels."""
    fallen: F32 = 0.5 - 0.5 * np.tanh((distance - radius) / (2 * soft))
    return fallen


def _spike(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """A diffraction spike of a star beside the stamp, in the light of its halo."""
    y, x = _away(len(noise))
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(20, 60)
    along, across = x * math.cos(angle) + y * math.sin(angle), x * math.sin(angle) - y * math.cos(angle)
    peak, distance = _log_uniform(rng, 4, 80), np.hypot(along + far, across)
    line = np.exp(-0.5 * (across / (fwhm / 2.355)) ** 2) * np.exp(-along / rng.uniform(10, 40))
    made: Array = noise + peak * np.minimum(line, 20) + rng.uniform(0, 0.5) * peak * (far / distance.clip(5)) ** 2
    return made


def _noise_peak(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """The highest peak of the noise, which is no object, away from what is one."""
    smooth = noise
    for axis in (0, 0, 1, 1):
        smooth = _boxed(smooth, axis, _SMOOTHED) / np.float32(_SMOOTHED)
    near = (smooth > _OBJECT).astype(np.float32)
    for axis in (0, 1):
        near = _boxed(near, axis, _BESIDE)
    if (near > 0).all():
        return noise
    row, column = np.unravel_index(int(np.where(near > 0, -np.inf, smooth).argmax()), smooth.shape)
    middle = len(noise) // 2
    return np.roll(noise, (middle - int(row), middle - int(column)), (0, 1))


def _boxed(values: F32, axis: int, width: int) -> F32:
    """Sums of `width` values about each, beyond the rim those of the other end."""
    total = np.zeros_like(values)
    for step in range(-(width // 2), width // 2 + 1):
        total += np.roll(values, step, axis)
    return total


def _step(rng: np.random.Generator, noise: F32, fwhm: float) -> Array:
    """Two amplifiers, or two exposures, of different sky."""
    y, x = _away(len(noise))
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.3 else math.pi / 2 * int(rng.integers(4))
    return noise + rng.uniform(1.5, 12) * ((x * math.cos(angle) + y * math.sin(angle)) > -0.5)


KINDS: dict[str, Callable[[np.random.Generator, F32, float], Array]] = {
    "bad_line": _bad_line,
    "bleed": _bleed,
    "cosmic_ray": _cosmic_ray,
    "ghost": _ghost,
    "hot_pixels": _hot_pixels,
    "noise_peak": _noise_peak,
    "spike": _spike,
    "step": _step,
    "trail": _trail,
}
"""Kind -> what paints it."""

PAINTED = tuple(sorted(set(KINDS) - {"noise_peak"}))
"""Kinds that add light, whatever is below them."""
