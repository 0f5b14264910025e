"""Kinds of galaxies beside the Sersic ones: each is one small frozen class that makes objects from common draws.

A kind says how common it is (`fraction`) and makes one galaxy of a `Draw`. To add one: a class here, its name in
`Kind`, and a class name in `objects.CLASSES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.simulation.hst import STRUCTURES, HstGalaxies, Picture
from astroml_plugin.simulation.objects import Part
from astroml_plugin.simulation.profiles import SERSIC_STEP, Knots, Sersic, ellipse, rotation

_ENLARGED = 3.0  # the most that a real galaxy is


class Draw(NamedTuple):
    """Random values that every galaxy is given, whatever its kind."""

    number: int
    """Number of the object in its set."""
    half_light_radius: float
    """Arcsec."""
    e1: float
    e2: float
    positions: F64
    """(band,) places of the bands along a colour."""


class Galaxy(NamedTuple):
    """One galaxy without its magnitude. Its truth is NaN where it has none."""

    label: str
    """One of `objects.CLASSES`."""
    parts: tuple[Part, ...]
    sersic_n: float
    half_light_radius: float
    e1: float
    e2: float


@dataclass(frozen=True)
class Irregular:
    """A faint disk with blue point-like knots: no ellipticity is true for it, so e1 and e2 are NaN."""

    fraction: float = 0.1
    """Fraction of the galaxies."""
    knots: tuple[int, int] = (5, 20)
    """Number of knots, uniform."""
    light: tuple[float, float] = (0.2, 0.6)
    """Share of the light in knots, reference band, uniform."""
    spread: float = 0.9
    """Standard deviation of the knots along each axis in half-light radii of the disk."""
    kind: str = "irregular"

    def __post_init__(self) -> None:
        _check(self, "irregular")
        if not 1 <= self.knots[0] <= self.knots[1] or not 0 <= self.light[0] <= self.light[1] <= 1:
            raise InputError(f"knots {self.knots} must rise from 1 or more, light {self.light} lie between 0 and 1")

    def make(self, draw: Draw, rng: np.random.Generator) -> Galaxy:
        """One galaxy."""
        count, light = int(rng.integers(self.knots[0], self.knots[1] + 1)), rng.uniform(*self.light)
        x, y = rng.normal(0, self.spread, (2, count))
        weight = rng.exponential(1.0, count)
        n = round(round(rng.uniform(0.5, 1.5) / SERSIC_STEP) * SERSIC_STEP, 6)
        blue = light * 10 ** (-0.4 * 0.4 * draw.positions)
        share = blue / (1 - light + blue)
        matrix = ellipse(draw.e1, draw.e2, draw.half_light_radius)
        knots = Knots(*(tuple(values.tolist()) for values in (x, y, weight / weight.sum())))
        parts = (Part(Sersic(n), matrix, 1 - share), Part(knots, matrix, share))
        return Galaxy("irregular", parts, n, draw.half_light_radius, math.nan, math.nan)


@dataclass(frozen=True)
class Composite:
    """A disk and a bulge of another ellipticity: e1 and e2 are NaN."""

    fraction: float = 0.1
    """Fraction of the galaxies."""
    light: tuple[float, float] = (0.1, 0.6)
    """Share of the light in the bulge (Sersic 4), reference band, uniform."""
    size: tuple[float, float] = (0.3, 0.6)
    """Half-light radius of the bulge in that of the disk, uniform."""
    kind: str = "composite"

    def __post_init__(self) -> None:
        _check(self, "composite")

    def make(self, draw: Draw, rng: np.random.Generator) -> Galaxy:
        """One galaxy."""
        light, radius = rng.uniform(*self.light), max(0.15, rng.uniform(*self.size) * draw.half_light_radius)
        red = light * 10 ** (0.4 * 0.4 * draw.positions)
        share = red / (1 - light + red)
        rounder = rng.uniform(0.0, 0.5)
        disk = Part(Sersic(1.0), ellipse(draw.e1, draw.e2, draw.half_light_radius), 1 - share)
        bulge = Part(Sersic(4.0), ellipse(rounder * draw.e1, rounder * draw.e2, radius), share)
        return Galaxy("disk", (disk, bulge), 1.0, draw.half_light_radius, math.nan, math.nan)


@dataclass(frozen=True)
class RealGalaxies:
    """Galaxies seen by HST in GalSim's `RealGalaxyCatalog` layout, without HST's PSF; e1 and e2 are NaN.

    The pixels' own noise belongs to the galaxy and is sheared with it. Sizes stay as observed, and most galaxies that
    are faint for HST are hardly resolved from the ground, unless `resized`.
    """

    path: str
    """The catalog's FITS table, or the folder that holds it."""
    fraction: float = 1.0
    """Fraction of the galaxies."""
    part: str = "train"
    """train, test or all: a seeded 60 : 40 split of the objects."""
    rotations: int = 0
    """0: any galaxy at any angle; else every galaxy in turn at this many equal steps of 360 degrees."""
    resized: bool = False
    """Whether galaxies take the half-light radii that the population draws, enlarged at most threefold: the resolution
    of HST is then still finer than a ground-based PSF."""
    split_seed: int = 1
    """Seed of the split; the same seed never gives one object to both parts."""
    structure: str = ""
    """Only galaxies that look so on HST's image, one of `hst.STRUCTURES`; empty for all."""
    kind: str = "real"

    def __post_init__(self) -> None:
        _check(self, "real")
        if self.rotations < 0:
            raise InputError("rotations must be 0 or more")
        if self.structure and self.structure not in STRUCTURES:
            raise InputError(f"a structure is one of {', '.join(STRUCTURES)}, not {self.structure!r}")

    def make(self, draw: Draw, rng: np.random.Generator) -> Galaxy:
        """One galaxy."""
        galaxies = HstGalaxies.open(self.path)
        named = (self.part, self.split_seed)
        chosen = galaxies.of_structure(self.structure, *named) if self.structure else galaxies.part(*named)
        if self.rotations:
            which, turn = draw.number % len(chosen), draw.number // len(chosen) % self.rotations
            angle = 2 * math.pi * turn / self.rotations
        else:
            which, angle = int(rng.integers(len(chosen))), rng.uniform(0, 2 * math.pi)
        picture = Picture(galaxies.path, int(chosen[which]))
        radius, matrix = picture.half_light_radius, rotation(angle)
        if self.resized:
            factor = min(draw.half_light_radius / radius, _ENLARGED)
            radius, matrix = factor * radius, ellipse(0.0, 0.0, factor).after(matrix)
        part = Part(picture, matrix, np.ones(len(draw.positions)))
        return Galaxy("real", (part,), math.nan, radius, math.nan, math.nan)


Kind = Irregular | Composite | RealGalaxies


def _check(settings: Kind, kind: str) -> None:
    if settings.kind != kind:  # how settings read from a file tell the kinds apart
        raise InputError(f"kind is {kind!r}, not {settings.kind!r}")
    if not 0 <= settings.fraction <= 1:
        raise InputError(f"the fraction of {kind} galaxies must lie between 0 and 1, not {settings.fraction}")
