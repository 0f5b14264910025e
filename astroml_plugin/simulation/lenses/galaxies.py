"""Early-type deflectors, the sources behind them and the galaxies and stars around them.

Deflectors follow from an Einstein radius and two redshifts: isothermal velocity dispersion, Faber-Jackson luminosity,
sizes from the size-luminosity relation of early types, colours of the red sequence as luminous red galaxies of the
SDSS show it (Eisenstein et al. 2001, AJ 122, 2267; Bernardi et al. 2003, AJ 125, 1849; rounded, with scatter).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from astroml_plugin.core.typing import F64
from astroml_plugin.simulation.lenses.light import Source
from astroml_plugin.simulation.profiles import Matrix, Point, Profile, Sersic, ellipse

_REDSHIFT = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
_G_R = np.array([0.75, 0.95, 1.22, 1.48, 1.65, 1.72, 1.76, 1.80, 1.84, 1.88])
_R_I = np.array([0.35, 0.40, 0.46, 0.53, 0.66, 0.86, 1.05, 1.20, 1.27, 1.30])
_K_R = np.array([0.0, 0.11, 0.23, 0.38, 0.58, 0.83, 1.10, 1.42, 1.75, 2.05])
"""Colours of old galaxies and their K correction in r, as observed at a redshift."""

_LIGHT = 299_792.458
_HUBBLE, _MATTER = 70.0, 0.3


@lru_cache(maxsize=1)
def _comoving() -> tuple[F64, F64]:
    """Redshifts and comoving distances in Mpc, flat with matter 0.3 and 70 km/s/Mpc."""
    z = np.linspace(0, 6, 3001)
    rate = _LIGHT / _HUBBLE / np.sqrt(_MATTER * (1 + z) ** 3 + 1 - _MATTER)
    return z, np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(z))])


def comoving_distance(z: float) -> float:
    """Mpc."""
    return float(np.interp(z, *_comoving()))


class Component:
    """One analytic profile with its flux per band, somewhere around the middle of the scene."""

    __slots__ = ("flux", "matrix", "profile", "x", "y")

    def __init__(self, profile: Profile, matrix: Matrix, flux: F64, x: float = 0.0, y: float = 0.0) -> None:
        self.profile, self.matrix, self.flux = profile, matrix, flux
        self.x, self.y = x, y


@dataclass(frozen=True)
class Deflector:
    """An early-type galaxy and its mass."""

    redshift: float
    source_redshift: float
    theta_e: float
    """Einstein radius, arcsec."""
    velocity_dispersion: float
    """km/s."""
    mag: tuple[float, float, float]
    """g, r, i."""
    half_light_radius: float
    """Arcsec."""
    sersic_n: float
    e1: float
    """Ellipticity of the light: (1 - q)/(1 + q) cos 2 phi."""
    e2: float
    mass_e1: float
    """Ellipticity of the mass."""
    mass_e2: float
    gamma1: float
    """External shear."""
    gamma2: float
    envelope: float
    """Share of the light in an exponential envelope, 0 for most."""
    envelope_size: float
    """Half-light radius of the envelope in that of the galaxy."""

    def components(self, zero_point: float) -> list[Component]:
        """Light of the deflector."""
        flux = 10 ** (0.4 * (zero_point - np.array(self.mag)))
        matrix = ellipse(self.e1, self.e2, self.half_light_radius)
        if self.envelope == 0:
            return [Component(Sersic(self.sersic_n), matrix, flux)]
        outer = ellipse(self.e1, self.e2, self.half_light_radius * self.envelope_size)
        share = self.envelope * 10 ** (0.4 * np.array([0.1, 0.0, -0.05]))
        return [
            Component(Sersic(self.sersic_n), matrix, flux * (1 - share)),
            Component(Sersic(1.0), outer, flux * share),
        ]


def red_colours(z: float) -> tuple[float, float]:
    """g - r and r - i of old galaxies."""
    return float(np.interp(z, _REDSHIFT, _G_R)), float(np.interp(z, _REDSHIFT, _R_I))


def draw_deflector(rng: np.random.Generator, theta_e: tuple[float, float]) -> Deflector:
    """A deflector with an Einstein radius uniform in `theta_e`."""
    radius = rng.uniform(*theta_e)
    z = 0.2 + 0.7 * rng.beta(2.2, 2.2)
    z_source = rng.uniform(max(1.0, z + 0.4), 3.0)
    to_lens, to_source = comoving_distance(z), comoving_distance(z_source)
    sigma = math.sqrt(radius / (2.884e-5 * (1 - to_lens / to_source)))
    magnitude = -21.3 - 10 * math.log10(sigma / 200) + rng.normal(0, 0.35)
    r = magnitude + 5 * math.log10(to_lens * (1 + z)) + 25 + float(np.interp(z, _REDSHIFT, _K_R)) - 0.9 * z
    g_r, r_i = red_colours(z)
    g_r, r_i = g_r + rng.normal(0, 0.06), r_i + rng.normal(0, 0.04)
    kpc = 5.5 * 10 ** (-0.24 * (magnitude + 22.2) + rng.normal(0, 0.1)) * (1 + z) ** -0.5
    size = float(np.clip(kpc / (to_lens / (1 + z) * 1000 / 206_265), 0.25, 3.0))
    light = _ellipticity(0.5 + 0.5 * rng.beta(2.0, 1.3), rng.uniform(0, math.pi))
    mass = _ellipticity(
        float(np.clip(_axis_ratio(*light) + rng.normal(0, 0.08), 0.5, 0.98)),
        math.atan2(light[1], light[0]) / 2 + rng.normal(0, math.radians(8)),
    )
    shear, angle = min(0.12, rng.lognormal(math.log(0.03), 0.6)), rng.uniform(0, 2 * math.pi)
    envelope = rng.uniform(0.15, 0.45) if rng.random() < 0.3 else 0.0
    n = round(rng.uniform(2.5, 5.5), 1)
    return Deflector(
        *(z, z_source, radius, sigma, (r + g_r, r, r - r_i), size, n, *light, *mass),
        *(shear * math.cos(angle), shear * math.sin(angle), envelope, rng.uniform(1.4, 2.2)),
    )


def _ellipticity(q: float, angle: float) -> tuple[float, float]:
    size = (1 - q) / (1 + q)
    return size * math.cos(2 * angle), size * math.sin(2 * angle)


def _axis_ratio(e1: float, e2: float) -> float:
    size = math.hypot(e1, e2)
    return (1 - size) / (1 + size)


def draw_magnitude(rng: np.random.Generator, limits: tuple[float, float], slope: float) -> float:
    """dN/dm proportional to 10^(slope m)."""
    rate = slope * math.log(10)
    if rate == 0:
        return rng.uniform(*limits)
    return limits[0] + math.log1p(rng.random() * math.expm1(rate * (limits[1] - limits[0]))) / rate


def blue_magnitudes(rng: np.random.Generator, r: float) -> F64:
    """g, r, i of a star-forming galaxy far away."""
    g_r, r_i = np.clip(rng.normal(0.3, 0.22), -0.2, 1.1), np.clip(rng.normal(0.18, 0.15), -0.2, 0.7)
    return np.array([r + g_r, r, r - r_i])


def nearby_magnitudes(rng: np.random.Generator, r: float) -> F64:
    """g, r, i of young stars at the redshifts of deflectors: arms, rings, companions."""
    g_r, r_i = np.clip(rng.normal(0.5, 0.22), -0.1, 1.2), np.clip(rng.normal(0.28, 0.15), -0.2, 0.8)
    return np.array([r + g_r, r, r - r_i])


def draw_source(rng: np.random.Generator, r: float, x: float, y: float) -> Source:
    """A source of magnitude `r` at (x, y); four in ten are clumpy."""
    size = float(np.clip(0.24 * 10 ** (-0.07 * (r - 24) + rng.normal(0, 0.17)), 0.08, 0.8))
    n = float(np.clip(rng.normal(1.1, 0.4), 0.5, 2.5))
    clumps: tuple[tuple[float, float, float, float], ...] = ()
    if rng.random() < 0.4:
        count = int(rng.integers(1, 6))
        share = rng.uniform(0.1, 0.5) * rng.dirichlet(np.ones(count))
        places = rng.normal(0, 0.7, (count, 2))
        clumps = tuple(
            (float(places[k, 0]), float(places[k, 1]), rng.uniform(0.03, 0.09), float(share[k])) for k in range(count)
        )
    return Source(x, y, size, n, rng.uniform(0.3, 1.0), rng.uniform(0, math.pi), clumps)


def draw_field(
    rng: np.random.Generator, side: float, galaxies: float, stars: float, zero_point: float
) -> list[Component]:
    """Draw the surroundings: galaxies and stars per arcmin² on a square of `side` arcsec."""
    area = (side / 60) ** 2
    found = [_field_galaxy(rng, side, zero_point) for _ in range(int(rng.poisson(galaxies * area)))]
    for _ in range(int(rng.poisson(stars * area))):
        r, g_r = rng.uniform(19.0, 25.5), rng.uniform(0.3, 1.4)
        mag = np.array([r + g_r, r, r - 0.15 - 0.6 * max(0.0, g_r - 0.8) - 0.2 * g_r])
        flux = 10 ** (0.4 * (zero_point - mag))
        found.append(Component(Point(), ellipse(0, 0), flux, *rng.uniform(-side / 2, side / 2, 2)))
    return found


def _field_galaxy(rng: np.random.Generator, side: float, zero_point: float) -> Component:
    r = draw_magnitude(rng, (20.0, 26.2), 0.3)
    if rng.random() < 0.2:
        g_r, r_i = red_colours(rng.uniform(0.2, 0.9))
        mag, n = np.array([r + g_r, r, r - r_i]), round(rng.uniform(2.0, 4.5), 1)
    else:
        g_r, r_i = rng.normal(0.5, 0.25), rng.normal(0.25, 0.15)
        mag, n = np.array([r + g_r, r, r - r_i]), round(rng.uniform(0.5, 2.0), 1)
    size = float(np.clip(0.3 * 10 ** (-0.1 * (r - 24) + rng.normal(0, 0.18)), 0.08, 1.5))
    shape = _ellipticity(rng.uniform(0.25, 1.0), rng.uniform(0, math.pi))
    flux = 10 ** (0.4 * (zero_point - mag))
    return Component(Sersic(n), ellipse(*shape, size), flux, *rng.uniform(-side / 2, side / 2, 2))
