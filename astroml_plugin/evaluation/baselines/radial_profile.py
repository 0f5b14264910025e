"""Rings about the centre of stamps, and the profile of the light along them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from astroml_plugin.core.typing import Array

ORDERS = 4
"""Highest order of the Fourier modes about the centre."""
RADII = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Edges of the annuli, in Petrosian radii."""


@dataclass(frozen=True)
class Rings:
    """Rings one pixel wide about the centre, for stamps of one size."""

    radius: Array
    """(h, w) pixels from the centre."""
    member: Array
    """(h w, rings) float32, 1 where the pixel lies in the ring."""
    count: Array
    """(rings,) pixels in each ring."""
    waves: Array
    """(h w, 2 orders rings) cosine and sine of each order within each ring."""
    inward: tuple[tuple[Array, Array], ...]
    """Per ring from 1 px on: its pixels, and for each the next one on the way to the centre."""

    @property
    def area(self) -> Array:
        """(rings,) pi ((k + 1)^2 - k^2) pixels."""
        return np.pi * (2 * np.arange(self.last) + 1)

    @property
    def last(self) -> int:
        """Number of rings."""
        return len(self.count)


@lru_cache(maxsize=8)
def rings_of(shape: tuple[int, int]) -> Rings:
    """Rings of stamps of one shape (h, w), made once."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    radius = np.hypot(x, y)
    last = max(2, min(height, width) // 2)
    number = np.minimum(radius.astype(int), last)
    member = (number.reshape(-1, 1) == np.arange(last)).astype(np.float32)
    angle = np.arctan2(y, x).reshape(-1, 1)
    waves = [member * wave(order * angle) for order in range(1, ORDERS + 1) for wave in (np.cos, np.sin)]
    inner = [
        np.rint(axis * (1 - 1 / np.maximum(radius, 1)) + middle).astype(int)
        for axis, middle in ((y, (height - 1) / 2), (x, (width - 1) / 2))
    ]
    steps = np.ravel_multi_index(tuple(inner), shape).reshape(-1)
    order = [np.flatnonzero(np.floor(radius.reshape(-1)) == ring) for ring in range(1, int(radius.max()) + 1)]
    return Rings(
        radius,
        member,
        member.sum(0),
        np.concatenate(waves, 1).astype(np.float32),
        tuple((pixels, steps[pixels]) for pixels in order),
    )


def ring_sums(image: Array, rings: Rings) -> Array:
    """(n, rings) light in each ring: the mean of its pixels times its area."""
    return (image.reshape(len(image), -1) @ rings.member) * (rings.area / rings.count)


class Profile:
    """The radial profile of n images and the radii that follow from it.

    The Petrosian radius comes from the part of the light that is there on both sides of the centre (the lesser of each
    pair of pixels, less what noise takes away), so that a neighbour does not make an object larger.
    """

    def __init__(self, light: Array, sigma: Array, rings: Rings) -> None:
        self.sums = ring_sums(light, rings)
        self.grown = np.concatenate([np.zeros((len(light), 1)), np.cumsum(self.sums, 1)], axis=1)
        self.mean = self.sums / rings.area
        both = ring_sums(np.minimum(light, light[:, ::-1, ::-1]), rings) + rings.count * sigma[:, None] / np.sqrt(np.pi)
        inside = np.cumsum(both, 1) / np.cumsum(rings.area)
        self.petrosian = _first_below(both / rings.area / inside, 0.2, start=2) + 0.5
        self.edge = np.minimum(1.5 * self.petrosian, rings.last)
        self.total = light_within(self.grown, self.edge)
        self.r20, self.r50, self.r80 = (radius_holding(self.grown, part * self.total) for part in (0.2, 0.5, 0.8))

    def columns(self, sigma: Array) -> dict[str, Array]:
        """Radii, fractions of light, slopes, peak and S/N, (n,) each; `sigma` is the noise of a pixel (n,)."""
        fractions = {f"light_{part}": light_within(self.grown, part * self.petrosian) / self.total for part in RADII}
        edges = [light_within(self.grown, part * self.petrosian) for part in (0.0, *RADII)]
        areas = [(part * self.petrosian) ** 2 for part in (0.0, *RADII)]
        levels = [(b - a) / (d - c) for a, b, c, d in zip(edges, edges[1:], areas, areas[1:])]
        slopes = {f"slope_{number}": lg(b) - lg(a) for number, (a, b) in enumerate(pairwise(levels))}
        curve = np.log(0.5 / 0.2) / np.log(self.r50 / self.r20) / (np.log(0.8 / 0.5) / np.log(self.r80 / self.r50))
        return {
            "petrosian": self.petrosian,
            "r20": self.r20,
            "r50": self.r50,
            "r80": self.r80,
            "concentration": 5 * np.log10(self.r80 / self.r20),
            "growth_ratio": curve,
            "peak": lg(self.mean[:, 0] / (self.total / (np.pi * self.r50**2))),
            "snr": lg(self.total / (sigma * np.sqrt(np.pi) * self.edge)),
            **fractions,
            **slopes,
        }


def _first_below(values: Array, level: float, start: int) -> Array:
    """(n,) place where `values` (n, k) first falls below the level from `start` on, interpolated; the last if never."""
    below = values[:, start:] < level
    place = np.where(below.any(1), below.argmax(1) + start, values.shape[1] - 1)
    rows = np.arange(len(values))
    high, low = values[rows, place - 1], values[rows, place]
    step = np.clip((high - level) / np.where(high > low, high - low, 1), 0, 1)
    result: Array = np.where(below.any(1), place - 1 + step, place)
    return result


def light_within(grown: Array, radius: Array) -> Array:
    """(n,) the growth curve (n, k) at radii (n,), linear between whole pixels in area."""
    place = np.clip(np.nan_to_num(radius), 0, grown.shape[1] - 1)
    below = np.minimum(place.astype(int), grown.shape[1] - 2)
    rows = np.arange(len(grown))
    step = (place**2 - below**2) / (2 * below + 1)
    values: Array = grown[rows, below] * (1 - step) + grown[rows, below + 1] * step
    return values


def radius_holding(grown: Array, wanted: Array) -> Array:
    """(n,) radius at which the growth curve (n, k) first reaches a value (n,), linear in area; NaN without light."""
    above = grown >= wanted[:, None]
    place = np.maximum(above.argmax(1), 1)
    rows = np.arange(len(grown))
    low, high = grown[rows, place - 1], grown[rows, place]
    step = np.clip((wanted - low) / np.where(high > low, high - low, 1), 0, 1)
    radius = np.sqrt((place - 1) ** 2 + step * (2 * place - 1))
    return np.where((wanted > 0) & above.any(1), radius, np.nan)


def lg(values: Array) -> Array:
    """Decimal logarithm, NaN where a value is not above 0."""
    return np.log10(np.where(values > 0, values, np.nan))
