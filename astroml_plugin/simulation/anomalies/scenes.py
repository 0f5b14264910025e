"""Scenes in the middle of a stamp: an ordinary galaxy, or one of the kinds of anomalies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from astroml_plugin.core.typing import F64
from astroml_plugin.simulation.anomalies.galaxies import Galaxy, Grid, draw_galaxy
from astroml_plugin.simulation.lenses import light
from astroml_plugin.simulation.lenses.bodies import Lens
from astroml_plugin.simulation.lenses.galaxies import Component, nearby_magnitudes
from astroml_plugin.simulation.lenses.light import Layer

MASS_RATIO = 4.0
"""Largest flux ratio of a merger's galaxies."""

SEPARATION = (0.5, 3.0)
"""Distance of a merger's galaxies in half-light radii of the first."""


@dataclass(frozen=True)
class Trail:
    """A straight line of light across the stamp, as a satellite leaves it."""

    angle: float
    """Direction from +x, radians."""
    distance: float
    """Pixels from the middle of the stamp."""
    peak: F64
    """(band,) brightness in units of the sky noise of a pixel."""
    width: float
    """Arcsec: Gaussian sigma beyond that of the PSF."""


@dataclass(frozen=True)
class Scene:
    """Light in the middle of a stamp, and what the truth table says of it."""

    components: list[Component]
    layers: list[Layer]
    galaxy: Galaxy
    trail: Trail | None = None
    truth: dict[str, float] = field(default_factory=dict)


Painter = Callable[[np.random.Generator, Grid, float, "Callable[[], Lens]"], Scene]
"""From chance, the grid of fine light, the zero point and a function that draws a strong lens."""


def normal(rng: np.random.Generator, grid: Grid, zero_point: float, lens: Callable[[], Lens]) -> Scene:
    """An ordinary galaxy."""
    galaxy = draw_galaxy(rng, grid, zero_point)
    return Scene(galaxy.components, galaxy.layers, galaxy)


def merger(rng: np.random.Generator, grid: Grid, zero_point: float, lens: Callable[[], Lens]) -> Scene:
    """Two galaxies of 1:1 to 1:4, half to three half-light radii apart, with one to three tidal tails."""
    first = draw_galaxy(rng, grid, zero_point)
    ratio = rng.uniform(1.0, MASS_RATIO)
    away, angle = rng.uniform(*SEPARATION) * first.half_light_radius, rng.uniform(0, 2 * math.pi)
    place = {"x": away * math.cos(angle), "y": away * math.sin(angle)}
    mag = float(first.mag[1] + 2.5 * math.log10(ratio))
    second = draw_galaxy(rng, grid, zero_point, mag, **place)
    flux = 10 ** (0.4 * (zero_point - first.mag))
    tails = rng.uniform(0.05, 0.25) * rng.dirichlet(np.ones(int(rng.integers(1, 4))))
    layers = [
        Layer(light.tail(*grid, rng, first.half_light_radius * rng.uniform(1.3, 3.0)), flux * share) for share in tails
    ]
    truth = {
        "flux_ratio": ratio,
        "separation": away / first.half_light_radius,
        "tidal_fraction": float(tails.sum()),
    }
    return Scene([*first.components, *second.components], [*first.layers, *second.layers, *layers], first, truth=truth)


def lens(rng: np.random.Generator, grid: Grid, zero_point: float, lens: Callable[[], Lens]) -> Scene:
    """A strong lens as of the preset `lenses`."""
    found = lens()
    deflector = found.deflector
    parts = deflector.components(zero_point)
    galaxy = Galaxy(parts, [], np.array(deflector.mag), deflector.half_light_radius, "spheroid")
    arcs = Layer(found.plane, 10 ** (0.4 * (zero_point - found.mag)))
    return Scene(parts, [arcs], galaxy, truth={"theta_e": deflector.theta_e, "arc_snr": found.snr})


def ring(rng: np.random.Generator, grid: Grid, zero_point: float, lens: Callable[[], Lens]) -> Scene:
    """A galaxy in a detached blue ring of a fifth to four fifths of its light."""
    galaxy = draw_galaxy(rng, grid, zero_point)
    share, radius = rng.uniform(0.2, 0.8), float(np.clip(galaxy.half_light_radius * rng.uniform(1.6, 3.0), 0.8, 3.2))
    flux = share * 10 ** (0.4 * (zero_point - nearby_magnitudes(rng, float(galaxy.mag[1]))))
    layer = Layer(light.ring(*grid, rng, radius), flux)
    return Scene(galaxy.components, [*galaxy.layers, layer], galaxy, truth={"ring_radius": radius})


def trail(rng: np.random.Generator, grid: Grid, zero_point: float, lens: Callable[[], Lens]) -> Scene:
    """An ordinary galaxy under the trail of a satellite, in one band or two, within 20 pixels of the centre."""
    galaxy = draw_galaxy(rng, grid, zero_point)
    bands = rng.permutation(3)[: int(rng.integers(1, 3))]
    peak = np.zeros(3)
    peak[bands] = np.exp(rng.uniform(math.log(3.0), math.log(30.0)))
    line = Trail(rng.uniform(0, math.pi), rng.uniform(-20, 20), peak, rng.uniform(0.0, 0.6))
    return Scene(galaxy.components, galaxy.layers, galaxy, line, {"trail_peak": float(peak.max())})


KINDS: dict[str, Painter] = {"normal": normal, "merger": merger, "lens": lens, "ring": ring, "trail": trail}
"""Kind -> what paints it."""
