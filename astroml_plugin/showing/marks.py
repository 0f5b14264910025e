"""Compass and scale bar of a view: pure geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.typing import F64

_ROUND = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Compass:
    """Unit vectors (x, y) in pixels, y up."""

    north: tuple[float, float]
    east: tuple[float, float]


def compass(jacobian: F64) -> Compass:
    """Directions of North and East from `View.jacobian`, also of turned and mirrored images."""
    inverse = np.linalg.inv(jacobian)
    north, east = inverse @ np.array([0.0, 1.0]), inverse @ np.array([-1.0, 0.0])
    north, east = north / np.linalg.norm(north), east / np.linalg.norm(east)
    return Compass((float(north[0]), float(north[1])), (float(east[0]), float(east[1])))


@dataclass(frozen=True)
class ScaleBar:
    """A bar of a round length."""

    pixels: float
    text: str


def scale_bar(width: int, jacobian: F64 | None) -> ScaleBar:
    """The longest bar of a round length of at most a quarter of `width` pixels; in pixels without world coordinates."""
    scale = None if jacobian is None else float(np.sqrt(abs(np.linalg.det(jacobian))))
    if scale is None:
        length = max(round_below(width / 4), 1.0)
        return ScaleBar(length, f"{length:g} pixels")
    most = scale * width / 4
    unit, size = next((pair for pair in (("deg", 3600.0), ("arcmin", 60.0)) if most >= pair[1]), ("arcsec", 1.0))
    length = round_below(most / size)
    return ScaleBar(length * size / scale, f"{length:g} {unit}")


def round_below(value: float) -> float:
    """The largest of 1, 2, 5, 10, 20, … (or 0.5, 0.2, …) that is not above a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in _ROUND if step * power <= value * (1 + 1e-9)))
