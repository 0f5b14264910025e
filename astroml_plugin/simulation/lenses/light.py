"""Shapes of light on a fine grid around a deflector: sources, spiral arms, rings, tidal tails, disks on edge.

Every function gives surface brightness per square arcsec, for a total flux of about 1, at positions in arcsec.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from astroml_plugin.core.typing import F32, F64, Array

FINE = 3
"""Samples per pixel along each axis."""

FIELD = 48
"""Side in pixels of the square that such light is sampled on; 4.8 arcsec around the deflector at 0.2 arcsec."""

_FAR = 30.0
"""Sersic exponents beyond this are darkness."""


class Layer(NamedTuple):
    """Finely sampled light with its flux per band."""

    plane: F32
    """Light of the square `FIELD`, to be multiplied by `flux`."""
    flux: F64
    """(band,)"""


@lru_cache(maxsize=4)
def positions(pixel_scale: float) -> tuple[F32, F32]:
    """x and y in arcsec of the samples, (FIELD * FINE)² each."""
    side = FIELD * FINE
    axis = ((np.arange(side) - (side - 1) / 2) * pixel_scale / FINE).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


@dataclass(frozen=True)
class Source:
    """A small galaxy: a Sersic profile, and perhaps clumps in it."""

    x: float
    """Arcsec from the deflector."""
    y: float
    half_light_radius: float
    """Arcsec, sqrt(ab)."""
    sersic_n: float
    axis_ratio: float
    angle: float
    """Angle of the major axis from +x towards +y, radians."""
    clumps: tuple[tuple[float, float, float, float], ...] = ()
    """x, y (half-light radii along and across the major axis), Gaussian sigma (arcsec), share of the flux."""

    def at(self, x: F32, y: F32) -> F32:
        """Brightness at positions of the source plane."""
        along, across = turned(x - self.x, y - self.y, self.angle)
        root = math.sqrt(self.axis_ratio)
        smooth = 1 - sum(clump[3] for clump in self.clumps)
        squared = (along * root) ** 2 + (across / root) ** 2
        light = smooth * sersic(squared, self.half_light_radius, self.sersic_n)
        for u, v, sigma, share in self.clumps:
            u, v = u * self.half_light_radius / root, v * self.half_light_radius * root
            light += share * gaussian(along - u, across - v, sigma)
        return light


def turned(x: F32, y: F32, angle: float) -> tuple[F32, F32]:
    """Coordinates along and across a direction."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine * x + sine * y, cosine * y - sine * x


def sersic(squared: F32, half_light_radius: float, n: float) -> F32:
    """A round Sersic profile of unit flux at squared radii (b to 1e-3 from n 0.5 up: Ciotti & Bertin 1999)."""
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n * n)
    total = 2 * math.pi * n * half_light_radius**2 * b ** (-2 * n) * math.gamma(2 * n)
    depth = np.minimum(b * (squared / half_light_radius**2) ** (0.5 / n), _FAR)
    light: F32 = np.exp(-depth)
    light /= total
    return light


def gaussian(x: F32, y: F32, sigma: float) -> F32:
    """A round Gaussian of unit flux."""
    light: F32 = np.exp(-np.minimum((x * x + y * y) / (2 * sigma**2), _FAR))
    light /= 2 * math.pi * sigma**2
    return light


def spiral(x: F32, y: F32, rng: np.random.Generator, radius: float) -> F32:
    """Blue arms: logarithmic spirals on an inclined exponential disk, brightest near `radius`, knots and a disk."""
    along, across = turned(x, y, rng.uniform(0, math.pi))
    r, phi = np.hypot(along, across / rng.uniform(0.45, 1.0)) + 1e-3, np.arctan2(across, along)
    arms = int(rng.choice([1, 2, 2, 2, 3, 4]))
    winding = 1 / math.tan(math.radians(rng.uniform(8, 28)))
    phase = arms * (phi - rng.choice([-1, 1]) * winding * np.log(r / radius) - rng.uniform(0, 2 * math.pi))
    inner, scale = rng.uniform(0.3, 0.7) * radius, rng.uniform(0.3, 0.6) * radius
    light = np.exp(rng.uniform(1.0, 4.0) * (np.cos(phase) - 1) - r / scale) * r**2 / (r**2 + inner**2)
    light *= 1 + rng.uniform(0, 0.8) * np.cos(phi - rng.uniform(0, 2 * math.pi))
    between = rng.uniform(0.1, 0.5)
    light = (1 - between) * _scaled(light, x) + between * _scaled(np.exp(-r / scale), x)
    return _knotted(light, x, y, rng, (0, 14))


def ring(x: F32, y: F32, rng: np.random.Generator, radius: float) -> F32:
    """A ring of star formation around a disk, inclined, uneven and knotted."""
    off, angle = rng.uniform(-0.08, 0.08, 2) * radius, rng.uniform(0, math.pi)
    along, across = turned(x - off[0], y - off[1], angle)
    r, phi = np.hypot(along, across / rng.uniform(0.5, 1.0)), np.arctan2(across, along)
    width = max(0.1, rng.uniform(0.1, 0.3) * radius)
    light = np.exp(-((r - radius) ** 2) / (2 * width**2))
    light *= 1 + rng.uniform(0, 0.9) * np.cos(int(rng.integers(1, 3)) * phi - rng.uniform(0, 2 * math.pi))
    inside = rng.uniform(0.1, 0.5)
    light = (1 - inside) * _scaled(light, x) + inside * _scaled(np.exp(-2 * r / radius), x)
    return _knotted(light, x, y, rng, (0, 8))


def tail(x: F32, y: F32, rng: np.random.Generator, radius: float) -> F32:
    """A tidal tail: a widening, fading part of a spiral around the centre."""
    start, length = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(50, 200))
    r, phi = np.hypot(x, y) + 1e-3, (np.arctan2(y, x) * rng.choice([-1, 1]) - start) % (2 * math.pi)
    way = np.minimum(phi / length, 1.5)
    middle = radius * np.exp(math.tan(math.radians(rng.uniform(0, 30))) * phi)
    width = rng.uniform(0.12, 0.3) * (1 + way)
    light = np.exp(-((r - middle) ** 2) / (2 * width**2) - 1.5 * way) / (1 + np.exp((way - 1) * 12))
    light *= 1 / (1 + np.exp(-(phi - 0.15) * 15))
    return _knotted(light, x, y, rng, (0, 4))


def edge_on(x: F32, y: F32, rng: np.random.Generator) -> F32:
    """An exponential disk seen from its side."""
    along, across = turned(x, y, rng.uniform(0, math.pi))
    length, height = rng.uniform(0.4, 1.1), rng.uniform(0.06, 0.18)
    height_factor = 1 / np.cosh(np.minimum(np.abs(across) / height, 20.0)) ** 2
    return _scaled(np.exp(-np.abs(along) / length) * height_factor, x)


def _knotted(light: Array, x: F32, y: F32, rng: np.random.Generator, number: tuple[int, int]) -> F32:
    """Unit flux, part of it in knots where the light is; it fades before the edge of the grid."""
    light = _scaled(light / (1 + np.exp((np.hypot(x, y) - 0.85 * float(x[0, -1])) / 0.12)), x)
    count = int(rng.integers(number[0], number[1] + 1))
    if count == 0:
        return light
    reach = np.cumsum(light.ravel())
    places = np.searchsorted(reach, rng.random(count) * reach[-1]).clip(0, light.size - 1)
    share = rng.uniform(0.05, 0.5) * rng.dirichlet(np.ones(count))
    light = light * (1 - share.sum())
    for place, part in zip(places.tolist(), share.tolist(), strict=True):
        light += part * gaussian(x - x.flat[place], y - y.flat[place], rng.uniform(0.05, 0.15))
    return light


def _scaled(light: Array, x: F32) -> F32:
    """Scale light to unit flux on this grid."""
    step = float(x[0, 1] - x[0, 0])
    values: F32 = np.divide(light, light.sum() * step * step, dtype=np.float32)
    return values
