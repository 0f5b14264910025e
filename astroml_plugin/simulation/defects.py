"""Pixels that cannot be used: cosmic-ray tracks and bad columns."""

from __future__ import annotations

import math

import numpy as np

from astroml_plugin.core.typing import F32, I64, Bool
from astroml_plugin.simulation.camera import Camera

_TRACK_PIXELS = 10.0
"""Mean number of pixels of a track, about."""


def track(rng: np.random.Generator, side: int) -> tuple[I64, I64]:
    """Rows and columns of one cosmic-ray track on (side, side) pixels."""
    angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(3, 15)
    along = np.arange(0, length, 0.5)
    x = np.floor(rng.uniform(0, side) + along * math.cos(angle)).astype(int)
    y = np.floor(rng.uniform(0, side) + along * math.sin(angle)).astype(int)
    kept = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    return y[kept], x[kept]


def masked_stamp(rng: np.random.Generator, side: int, fraction: float, camera: Camera) -> tuple[F32, Bool]:
    """Garbage values and where they are, both (band, side, side): tracks and bad columns, half of the pixels each.

    Args:
        rng: of this stamp.
        side: pixels.
        fraction: of the pixels, in the mean.
        camera: its sky noise sets the level of the garbage.
    """
    bad = np.zeros((len(camera.bands), side, side), bool)
    for band in bad:
        for _ in range(rng.poisson(fraction / 2 * side**2 / _TRACK_PIXELS)):
            band[track(rng, side)] = True
        band[:, rng.random(side) < fraction / 2] = True
    garbage = rng.uniform(-20, 200, bad.shape).astype(np.float32) * np.float32(camera.sky_sigma)
    return garbage, bad
