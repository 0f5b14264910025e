"""Bodies painted beside a deflector: arcs for a lens, and for everything else what is mistaken for arcs.

Every stamp starts from a lens that was accepted. A negative keeps its deflector, surroundings, PSF and noise, and the
light of the arcs is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from astroml_plugin.core.registry import optional
from astroml_plugin.core.typing import F32, F64
from astroml_plugin.simulation.lenses import light
from astroml_plugin.simulation.lenses.galaxies import Component, Deflector, draw_source, nearby_magnitudes, red_colours
from astroml_plugin.simulation.lenses.light import Layer, Source
from astroml_plugin.simulation.profiles import Sersic, ellipse


@lru_cache(maxsize=1)
def lens_model() -> Any:
    """lenstronomy's isothermal ellipsoid with external shear (Birrer & Amara 2018).

    Raises:
        InputError: lenstronomy is not installed.
    """
    missing = 'simulating lenses needs lenstronomy, which is not installed: pip install "astroml-plugin[sim]"'
    return optional("lenstronomy.LensModel.lens_model", missing).LensModel(["SIE", "SHEAR"])


def source_plane(deflector: Deflector, x: F32, y: F32) -> tuple[F32, F32]:
    """Where the light at image positions (arcsec from the deflector) comes from."""
    mass = {"theta_E": deflector.theta_e, "e1": deflector.mass_e1, "e2": deflector.mass_e2}
    shear = {"gamma1": deflector.gamma1, "gamma2": deflector.gamma2, "ra_0": 0.0, "dec_0": 0.0}
    at = (x.ravel().astype(np.float64), y.ravel().astype(np.float64))
    found = lens_model().ray_shooting(*at, [{**mass, "center_x": 0.0, "center_y": 0.0}, shear])
    return found[0].astype(np.float32).reshape(x.shape), found[1].astype(np.float32).reshape(x.shape)


class Lens(NamedTuple):
    """An accepted lens: what every stamp of the set starts from."""

    deflector: Deflector
    source: Source
    mag: F64
    """(band,) of the source, unlensed."""
    magnification: float
    plane: F32
    """The arcs, for an unlensed flux of 1."""
    snr: float
    pixels: int


@dataclass(frozen=True)
class Body:
    """Light in the middle of a stamp."""

    components: list[Component]
    layers: list[Layer]
    source_mag: float = math.nan
    """r, where the source is there."""


Painter = Callable[[Lens, np.random.Generator, float, tuple[F32, F32]], Body]


def lensed(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector and its arcs."""
    flux = 10 ** (0.4 * (zero_point - lens.mag))
    return Body(lens.deflector.components(zero_point), [Layer(lens.plane, flux)], float(lens.mag[1]))


def unlensed(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """A lens's deflector with its source beside it, unlensed, within 3 arcsec."""
    place = _beside(rng, 0.3, 3.0)
    moved = replace(lens.source, x=place["x"], y=place["y"])
    flux = 10 ** (0.4 * (zero_point - lens.mag))
    return Body(lens.deflector.components(zero_point), [Layer(moved.at(*xy), flux)], float(lens.mag[1]))


def plain(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector alone."""
    return Body(lens.deflector.components(zero_point), [])


def spiral(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector as the bulge of a spiral, with blue arms of the arcs' flux where arcs would be."""
    plane = light.spiral(*xy, rng, lens.deflector.theta_e * rng.uniform(0.8, 1.2))
    return Body(_disk(lens, rng, zero_point), [Layer(plane, _blue(lens, rng, zero_point))])


def ring(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector in a blue ring."""
    plane = light.ring(*xy, rng, lens.deflector.theta_e * rng.uniform(0.8, 1.2))
    return Body(lens.deflector.components(zero_point), [Layer(plane, _blue(lens, rng, zero_point))])


def merger(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector and a second galaxy of its kind within 2.5 arcsec, with a tidal tail."""
    first, radius = lens.deflector, lens.deflector.theta_e
    place = _beside(rng, 0.7, 2.5)
    mag = np.array(first.mag) + rng.uniform(0.0, 2.0) + rng.normal(0, 0.15) * np.array([1.0, 0.0, -0.5])
    shape = ellipse(*_shape(rng, 0.4), float(np.clip(first.half_light_radius * rng.uniform(0.4, 0.9), 0.2, 2.0)))
    second = Component(Sersic(round(rng.uniform(1.0, 4.0), 1)), shape, 10 ** (0.4 * (zero_point - mag)), **place)
    blue, red = _blue(lens, rng, zero_point), 10 ** (0.4 * (zero_point - np.array(first.mag)))
    share = rng.uniform(0, 0.6)
    flux = rng.uniform(0.4, 1.0) * ((1 - share) * blue + share * red * blue[1] / red[1])
    plane = light.tail(*xy, rng, radius * rng.uniform(0.8, 1.3))
    return Body([*first.components(zero_point), second], [Layer(plane, flux)])


def companions(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector and one to four small galaxies around it, as bright together as the arcs."""
    count = int(rng.integers(1, 5))
    shares = rng.dirichlet(np.full(count, 2.0))
    plane = np.zeros_like(xy[0])
    for share in shares.tolist():
        r = float(lens.mag[1] - 2.5 * math.log10(lens.magnification * share))
        place = _beside(rng, 0.6, 3.0)
        plane += np.float32(share) * draw_source(rng, min(r, 25.0), place["x"], place["y"]).at(*xy)
    flux = _blue(lens, rng, zero_point)
    if rng.random() < 0.3:
        g_r, r_i = red_colours(lens.deflector.redshift)
        flux = flux[1] * 10 ** (0.4 * np.array([-g_r, 0.0, r_i]))
    return Body(lens.deflector.components(zero_point), [Layer(plane, flux)])


def edge_on(lens: Lens, rng: np.random.Generator, zero_point: float, xy: tuple[F32, F32]) -> Body:
    """The deflector as the bulge of a disk seen from its side."""
    blue, red = _blue(lens, rng, zero_point), 10 ** (0.4 * (zero_point - np.array(lens.deflector.mag)))
    share = rng.uniform(0, 0.8)
    flux = rng.uniform(0.8, 2.5) * ((1 - share) * blue + share * red * blue[1] / red[1])
    return Body(lens.deflector.components(zero_point), [Layer(light.edge_on(*xy, rng), flux)])


PAINTERS: dict[str, Painter] = {
    "lens": lensed,
    "unlensed": unlensed,
    "spiral": spiral,
    "ring": ring,
    "merger": merger,
    "companions": companions,
    "edge_on": edge_on,
    "plain": plain,
}
"""Kind -> what paints it."""

HARD = ("unlensed", "spiral", "ring", "merger")
"""Negatives that are quoted alone."""


def _beside(rng: np.random.Generator, nearest: float, farthest: float) -> dict[str, float]:
    """A place uniform in area between two distances."""
    radius, angle = math.sqrt(rng.uniform(nearest**2, farthest**2)), rng.uniform(0, 2 * math.pi)
    return {"x": radius * math.cos(angle), "y": radius * math.sin(angle)}


def _shape(rng: np.random.Generator, smallest: float) -> tuple[float, float]:
    q, angle = rng.uniform(smallest, 1.0), rng.uniform(0, 2 * math.pi)
    size = (1 - q) / (1 + q)
    return size * math.cos(angle), size * math.sin(angle)


def _blue(lens: Lens, rng: np.random.Generator, zero_point: float) -> F64:
    """(band,) flux as bright as the arcs, blue as nearer galaxies are."""
    mag = nearby_magnitudes(rng, float(lens.mag[1]))
    return lens.magnification * rng.uniform(0.7, 1.3) * 10 ** (0.4 * (zero_point - mag))


def _disk(lens: Lens, rng: np.random.Generator, zero_point: float) -> list[Component]:
    """The deflector's light, part of it in a disk."""
    deflector = lens.deflector
    share, size = rng.uniform(0.2, 0.7), rng.uniform(1.0, 1.6)
    return replace(deflector, envelope=share, envelope_size=size).components(zero_point)
