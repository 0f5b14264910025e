"""Ordinary galaxies: spheroids, disks with and without bulges, spirals with knotted arms, disks seen from the edge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.typing import F32, F64
from astroml_plugin.simulation.lenses import light
from astroml_plugin.simulation.lenses.galaxies import Component, draw_magnitude, nearby_magnitudes, red_colours
from astroml_plugin.simulation.lenses.light import Layer
from astroml_plugin.simulation.profiles import Sersic, ellipse

Grid = tuple[F32, F32]
"""x and y of the samples of fine light, arcsec from the middle of the scene."""

MAGNITUDES = (19.0, 22.5)
"""r of ordinary galaxies: those whose structure a ground-based survey resolves."""

_SLOPE = 0.2
_TYPES = {"spheroid": 0.3, "disk": 0.3, "spiral": 0.25, "edge_on": 0.15}


@dataclass(frozen=True)
class Galaxy:
    """Light of one galaxy."""

    components: list[Component]
    layers: list[Layer]
    mag: F64
    """(band,) g, r, i."""
    half_light_radius: float
    """Arcsec, of the smooth light."""
    type: str


def draw_galaxy(
    rng: np.random.Generator, grid: Grid, zero_point: float, mag: float | None = None, x: float = 0.0, y: float = 0.0
) -> Galaxy:
    """An ordinary galaxy.

    Args:
        rng: source of chance.
        grid: of fine light.
        zero_point: magnitude of one unit of flux.
        mag: r; drawn if not given.
        x, y: of its centre, arcsec from the middle of the scene.
    """
    r = draw_magnitude(rng, MAGNITUDES, _SLOPE) if mag is None else mag
    kind = str(rng.choice(list(_TYPES), p=list(_TYPES.values())))
    radius = float(np.clip(0.75 * 10 ** (-0.12 * (r - 21) + rng.normal(0, 0.13)), 0.3, 1.8))
    return _DRAWN[kind](rng, grid, zero_point, r, radius, (x, y))


def _spheroid(
    rng: np.random.Generator, grid: Grid, zero_point: float, r: float, radius: float, at: tuple[float, float]
) -> Galaxy:
    g_r, r_i = red_colours(rng.uniform(0.1, 0.8))
    mag = np.array([r + g_r, r, r - r_i]) + rng.normal(0, 0.05, 3)
    flux = 10 ** (0.4 * (zero_point - mag))
    smooth = Component(Sersic(round(rng.uniform(2.0, 5.0), 1)), ellipse(*shape(rng, 0.5), radius), flux, *at)
    return Galaxy([smooth], [], mag, radius, "spheroid")


def _disk(
    rng: np.random.Generator, grid: Grid, zero_point: float, r: float, radius: float, at: tuple[float, float]
) -> Galaxy:
    mag = nearby_magnitudes(rng, r)
    flux, e = 10 ** (0.4 * (zero_point - mag)), shape(rng, 0.3)
    bulge = rng.uniform(0, 0.4) * (rng.random() < 0.6) * np.array([0.6, 1.0, 1.2])
    parts = [Component(Sersic(round(rng.uniform(0.7, 1.4), 1)), ellipse(*e, radius), flux * (1 - bulge), *at)]
    if bulge.any():
        parts.append(Component(Sersic(3.0), ellipse(0.5 * e[0], 0.5 * e[1], 0.4 * radius), flux * bulge, *at))
    return Galaxy(parts, [], mag, radius, "disk")


def _spiral(
    rng: np.random.Generator, grid: Grid, zero_point: float, r: float, radius: float, at: tuple[float, float]
) -> Galaxy:
    whole = _disk(rng, grid, zero_point, r, radius, at)
    share = rng.uniform(0.2, 0.6) * np.array([1.1, 1.0, 0.9])
    parts = [Component(part.profile, part.matrix, part.flux * (1 - share), *at) for part in whole.components]
    plane = light.spiral(grid[0] - np.float32(at[0]), grid[1] - np.float32(at[1]), rng, radius * rng.uniform(0.9, 1.6))
    arms = Layer(plane, 10 ** (0.4 * (zero_point - whole.mag)) * share)
    return Galaxy(parts, [arms], whole.mag, radius, "spiral")


def _edge_on(
    rng: np.random.Generator, grid: Grid, zero_point: float, r: float, radius: float, at: tuple[float, float]
) -> Galaxy:
    mag = nearby_magnitudes(rng, r) + np.array([0.2, 0.0, -0.1])
    flux, bulge = 10 ** (0.4 * (zero_point - mag)), rng.uniform(0, 0.35) * np.array([0.7, 1.0, 1.2])
    disk = Layer(light.edge_on(grid[0] - np.float32(at[0]), grid[1] - np.float32(at[1]), rng), flux * (1 - bulge))
    middle = Component(Sersic(2.0), ellipse(0.0, 0.0, max(0.2, 0.4 * radius)), flux * bulge, *at)
    return Galaxy([middle], [disk], mag, radius, "edge_on")


_DRAWN: dict[str, Callable[..., Galaxy]] = {
    "spheroid": _spheroid,
    "disk": _disk,
    "spiral": _spiral,
    "edge_on": _edge_on,
}


def shape(rng: np.random.Generator, smallest: float) -> tuple[float, float]:
    """Reduced shear of an axis ratio of `smallest` to 1, any angle."""
    q, angle = rng.uniform(smallest, 1.0), rng.uniform(0, 2 * math.pi)
    size = (1 - q) / (1 + q)
    return size * math.cos(angle), size * math.sin(angle)
