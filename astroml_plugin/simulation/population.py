"""Population of the simulated universe: magnitudes, shapes, colours and classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.kinds import Draw, Kind
from astroml_plugin.simulation.objects import CLASSES, STAR, Objects, Part, as_parts
from astroml_plugin.simulation.profiles import SERSIC_STEP, Matrix, Point, Sersic, ellipse

_DISK_LIMIT = 2.0

_ELLIPTICITIES = ("exponential", "rayleigh")


@dataclass(frozen=True)
class Population:
    """Distributions that objects are drawn from. Ranges are uniform unless said otherwise."""

    magnitude: tuple[float, float] = (20.0, 25.3)
    """Galaxies' magnitudes in the reference band, dN/dm proportional to 10^(slope m)."""
    slope: float = 0.35
    """Slope of the number counts."""
    tail: float = 0.0
    """Magnitudes beyond the faint limit over which the counts fall to 0 in a straight line; 0 for a sharp limit."""
    star_magnitude: tuple[float, float] = (17.0, 25.3)
    """Stars' magnitudes, uniform; the brightest saturate."""
    star_fraction: float = 0.1
    """Stars per galaxy and star together."""
    sersic_n: tuple[float, float] = (0.5, 4.0)
    """Sersic index of the main component, on a grid of 0.1, within 0.3 to 6.2."""
    half_light_radius: tuple[float, float] = (0.3, 1.0)
    """Arcsec, sqrt(ab)."""
    ellipticity: str = "exponential"
    """Density of |e| = (a-b)/(a+b). exponential: |e| exp(-|e|/a), most galaxies near round, the density in the (e1, e2)
    plane has a cusp at 0, rms sqrt(3) a per component; rayleigh: |e| exp(-(|e|/a)²/2), rms a. Angles are uniform."""
    ellipticity_scale: float = 0.1
    """a of `ellipticity`."""
    ellipticity_max: float = 0.8
    """Ellipticities above this are drawn again."""
    bulge_probability: float = 0.0
    """Disks that carry a red bulge (Sersic 4, 0.4 of the half-light radius, the disk's own ellipticity, 10-40 % of the
    light in the reference band), so that their image changes from band to band."""
    kinds: tuple[Kind, ...] = ()
    """Further kinds of galaxies, each with its fraction of all galaxies."""
    shear: tuple[float, float] = (0.0, 0.0)
    """Shear (g1, g2) applied to every galaxy; `e1, e2` are after it."""

    def __post_init__(self) -> None:
        for name in ("magnitude", "star_magnitude", "sersic_n", "half_light_radius"):
            low, high = getattr(self, name)
            if not low <= high:
                raise InputError(f"{name} runs from {low} to {high}: give the lower value first")
        if not 0.3 <= self.sersic_n[0] <= self.sersic_n[1] <= 6.2 or self.half_light_radius[0] <= 0:
            raise InputError("sersic_n lies between 0.3 and 6.2, half_light_radius above 0")
        if not 0 <= self.star_fraction <= 1 or not 0 <= self.bulge_probability <= 1:
            raise InputError("star_fraction and bulge_probability lie between 0 and 1")
        if self.ellipticity not in _ELLIPTICITIES or not 0 <= self.ellipticity_max < 1:
            raise InputError(f"ellipticity is one of {', '.join(_ELLIPTICITIES)}, ellipticity_max below 1")
        if sum(kind.fraction for kind in self.kinds) > 1 + 1e-9:
            raise InputError("the fractions of the kinds of galaxies add up to more than 1")
        if not 0 <= self.tail <= 5:
            raise InputError(f"a tail of {self.tail} magnitudes lies outside 0 to 5")
        if math.hypot(*self.shear) >= 0.5:
            raise InputError(f"a shear of {self.shear} is not weak: keep |g| below 0.5")


def draw_population(
    rng: np.random.Generator, count: int, population: Population, camera: Camera, first: int = 0
) -> Objects:
    """`count` objects, the first of number `first`. The draws are per object but for rejected ellipticities."""
    star = rng.random(count) < population.star_fraction
    n = _on_grid(rng.uniform(*population.sersic_n, count), population.sersic_n)
    kind = np.where(star, STAR, np.where(n >= _DISK_LIMIT, 1, 2))
    e1, e2 = _ellipticities(rng, count, population)
    radius = rng.uniform(*population.half_light_radius, count)
    reference = np.where(star, rng.uniform(*population.star_magnitude, count), _counts(rng, count, population))
    with_bulge = (kind == 2) & (rng.random(count) < population.bulge_probability)
    main, bulge_colour, fraction = _colours(rng, kind), rng.normal(0.85, 0.06, count), rng.uniform(0.1, 0.4, count)
    mag, bulge = _band_magnitudes(reference, main, bulge_colour, np.where(with_bulge, fraction, 0.0), camera)
    gone, none = np.where(star, np.nan, 1.0), np.zeros(count)
    parts = as_parts([_PARTS[min(k, 1)](*row) for k, *row in zip(kind.tolist(), n, radius, e1, e2, bulge, strict=True)])
    objects = Objects(kind, mag, bulge, n * gone, radius * gone, e1 * gone, e2 * gone, none, none, parts)
    if population.kinds:
        _add_kinds(objects, np.stack([radius, e1, e2], axis=1), rng, population, camera, first)
    g1, g2 = population.shear
    return objects.sheared(np.full(count, g1), np.full(count, g2)) if g1 or g2 else objects


def _star_parts(n: float, radius: float, e1: float, e2: float, bulge: F64) -> tuple[Part, ...]:
    return (Part(Point(), Matrix(1.0, 0.0, 0.0, 1.0), np.ones(len(bulge))),)


def _sersic_parts(n: float, radius: float, e1: float, e2: float, bulge: F64) -> tuple[Part, ...]:
    n, radius, e1, e2 = float(n), float(radius), float(e1), float(e2)
    main = Part(Sersic(n), ellipse(e1, e2, radius), 1 - bulge)
    if not bulge.any():
        return (main,)
    return main, Part(Sersic(4.0), ellipse(e1, e2, max(0.15, 0.4 * radius)), bulge)


_PARTS = (_star_parts, _sersic_parts)


def _add_kinds(
    objects: Objects, shapes: F64, rng: np.random.Generator, population: Population, camera: Camera, first: int
) -> None:
    """Turn some galaxies into those of further kinds, in place; a galaxy's own seed makes it."""
    limits = np.cumsum([kind.fraction for kind in population.kinds])
    choice = np.searchsorted(limits, rng.random(len(objects)), side="right")
    seeds = rng.integers(0, 2**63, len(objects))
    places = camera.band_positions()
    for i in np.flatnonzero((choice < len(limits)) & (objects.kind != STAR)).tolist():
        draw = Draw(first + i, float(shapes[i, 0]), float(shapes[i, 1]), float(shapes[i, 2]), places)
        own = np.random.Generator(np.random.PCG64(int(seeds[i])))
        galaxy = population.kinds[choice[i]].make(draw, own)
        objects.kind[i], objects.parts[i] = CLASSES.index(galaxy.label), galaxy.parts
        objects.bulge[i] = 0.0
        for name in ("sersic_n", "half_light_radius", "e1", "e2"):
            getattr(objects, name)[i] = getattr(galaxy, name)


def _on_grid(n: F64, limits: tuple[float, float]) -> F64:
    snapped: F64 = np.clip(np.round(n / SERSIC_STEP) * SERSIC_STEP, limits[0], limits[1])
    return snapped.round(6)


def _ellipticities(rng: np.random.Generator, count: int, population: Population) -> tuple[F64, F64]:
    scale = max(population.ellipticity_scale, 1e-12)

    def sizes(number: int) -> F64:
        return rng.gamma(2.0, scale, number) if population.ellipticity == "exponential" else rng.rayleigh(scale, number)

    size = sizes(count)
    while (large := size > population.ellipticity_max).any():
        size[large] = sizes(int(large.sum()))
    angle = rng.uniform(0, 2 * np.pi, count)
    return size * np.cos(angle), size * np.sin(angle)


def _counts(rng: np.random.Generator, count: int, population: Population) -> F64:
    """Magnitudes with dN/dm proportional to 10^(slope m), by inversion; some of them in the tail beyond."""
    low, high = population.magnitude
    u, rate = rng.random(count), population.slope * math.log(10)
    if rate == 0 or high == low:
        drawn = low + u * (high - low)
    else:
        drawn = low + np.log1p(u * math.expm1(rate * (high - low))) / rate
    if population.tail > 0:
        faint = rng.random(count) < tail_fraction(population)
        drawn = np.where(faint, high + population.tail * (1 - np.sqrt(rng.random(count))), drawn)
    return drawn


def tail_fraction(population: Population) -> float:
    """Part of the galaxies that lies in the tail: the counts go on without a step at the faint limit."""
    low, high = population.magnitude
    rate = population.slope * math.log(10)
    main = high - low if rate == 0 else -math.expm1(-rate * (high - low)) / rate
    return population.tail / 2 / (population.tail / 2 + main)


def _colours(rng: np.random.Generator, kind: I64) -> F64:
    """(n,) colour per unit of band position: g - r. Stars 0.2-1.4, spheroids red, disks blue."""
    count = len(kind)
    star, red, blue = rng.uniform(0.2, 1.4, count), rng.normal(0.85, 0.1, count), rng.normal(0.45, 0.15, count)
    return np.choose(kind, [star, red, blue])


def _band_magnitudes(reference: F64, colour: F64, bulge_colour: F64, fraction: F64, camera: Camera) -> tuple[F64, F64]:
    """Magnitudes and bulge-to-total light, both (n, band)."""
    place = camera.band_positions()
    main = (1 - fraction)[:, None] * 10 ** (0.4 * colour[:, None] * place)
    bulge = fraction[:, None] * 10 ** (0.4 * bulge_colour[:, None] * place)
    total = main + bulge
    return reference[:, None] - 2.5 * np.log10(total), bulge / total
