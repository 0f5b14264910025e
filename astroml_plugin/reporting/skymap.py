"""Maps of the sky: an equal-area projection about the middle of what is shown, East to the left, with a graticule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.typing import F64
from astroml_plugin.reporting.charts import Axis, Chart, Line, Series, Words
from astroml_plugin.sky.wcs import separation, unit_vectors

_WHOLE = 75.0
"""Degrees from the middle beyond which the whole sky is drawn."""

_STEPS = (60, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
_RULE = "#9aa5b4"


@dataclass(frozen=True)
class SkyMap:
    """A projection."""

    ra: float
    """Middle, degrees."""
    dec: float
    """Middle, degrees; 0 of a map of the whole sky."""
    whole: bool
    """Whether the whole sky is drawn (Mollweide); else Lambert's azimuthal projection about the middle."""

    @classmethod
    def about(cls, ra: ArrayLike, dec: ArrayLike) -> SkyMap:
        """The map of places (n,) in degrees, at least one of them finite."""
        given = unit_vectors(np.asarray(ra, float).ravel(), np.asarray(dec, float).ravel())
        vectors = given[np.isfinite(given).all(1)]
        middle = vectors.mean(0)
        if np.linalg.norm(middle) < 1e-6:
            return cls(0.0, 0.0, True)
        ra0 = float(np.degrees(np.arctan2(middle[1], middle[0])) % 360)
        dec0 = float(np.degrees(np.arctan2(middle[2], np.hypot(middle[0], middle[1]))))
        cosines = np.clip(vectors @ (middle / np.linalg.norm(middle)), -1, 1)
        whole = float(np.degrees(np.arccos(cosines.min()))) > _WHOLE
        return cls(ra0, 0.0 if whole else dec0, whole)

    def xy(self, ra: ArrayLike, dec: ArrayLike) -> tuple[F64, F64]:
        """Places on the map in degrees near its middle, x to the right (West); of the shape of `ra`."""
        longitude = np.radians((np.asarray(ra, float) - self.ra + 180) % 360 - 180)
        latitude = np.radians(np.asarray(dec, float))
        if self.whole:
            return _mollweide(longitude, latitude)
        middle = np.radians(self.dec)
        cosine = np.sin(middle) * np.sin(latitude) + np.cos(middle) * np.cos(latitude) * np.cos(longitude)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.degrees(np.sqrt(2 / np.maximum(1 + cosine, 1e-9)))
        north = np.cos(middle) * np.sin(latitude) - np.sin(middle) * np.cos(latitude) * np.cos(longitude)
        return -factor * np.cos(latitude) * np.sin(longitude), factor * north

    def polygons(self, ra: F64, dec: F64) -> tuple[F64, F64]:
        """Corners (n, k) on the map; those that the edge of a map of the whole sky cuts are NaN."""
        x, y = self.xy(ra, dec)
        cut = (np.ptp(x, axis=1) > 90) if self.whole else np.zeros(len(x), bool)
        return np.where(cut[:, None], np.nan, x), np.where(cut[:, None], np.nan, y)


def _mollweide(longitude: F64, latitude: F64) -> tuple[F64, F64]:
    angle = np.array(latitude, float)
    for _ in range(30):
        slope = np.maximum(2 + 2 * np.cos(2 * angle), 1e-6)
        angle = angle - (2 * angle + np.sin(2 * angle) - np.pi * np.sin(latitude)) / slope
    angle = np.clip(angle, -np.pi / 2, np.pi / 2)
    root = np.sqrt(2)
    return (
        np.degrees(-2 * root / np.pi * longitude * np.cos(angle)),
        np.degrees(root * np.sin(angle)),
    )


def chart(title: str, sky: SkyMap, series: Sequence[Series], shown: tuple[F64, F64], *, alt: str = "") -> Chart:
    """A map with a graticule.

    Args:
        title: of the chart.
        sky: the projection.
        series: what is drawn, in its coordinates.
        shown: x and y of all that must be in view.
        alt: what is to be seen.
    """
    x, y = (values[np.isfinite(values)] for values in shown)
    reach = max(float(np.ptp(x)), float(np.ptp(y)), 1e-5) * 0.1
    box = (float(x.min()) - reach, float(x.max()) + reach, float(y.min()) - reach, float(y.max()) + reach)
    lines, words = _graticule(sky, box)
    wide = (box[1] - box[0]) / (box[3] - box[2])
    height = int(np.clip(460 / wide, 220, 480))
    return Chart(
        title,
        Axis("", limits=box[:2]),
        Axis("", limits=box[2:]),
        [*lines, *series, words],
        height=height,
        equal=True,
        bare=True,
        alt=alt,
        legend=False,
    )


def _graticule(sky: SkyMap, box: tuple[float, float, float, float]) -> tuple[list[Series], Words]:
    """Lines of equal right ascension and declination in a box (x0, x1, y0, y1), and their names at its edges."""
    size = max(box[1] - box[0], box[3] - box[2])
    step = next((one for one in _STEPS if min(box[1] - box[0], box[3] - box[2]) / one >= 2), _STEPS[-1])
    if sky.whole:
        step = 30
    reach = 90.0 if sky.whole else min(0.75 * size, 89.0)
    low, high = max(sky.dec - reach, -90.0), min(sky.dec + reach, 90.0)
    narrow = max(np.cos(np.radians(min(max(abs(low), abs(high)), 90.0))), 1e-9)
    turn = step if sky.whole else next((one for one in reversed(_STEPS) if one >= step / narrow), 60)
    half = 180.0 if sky.whole or reach / narrow >= 180 else reach / narrow
    found: list[tuple[F64, F64, str, bool]] = []
    for value in np.arange(np.ceil((sky.ra - half) / turn), np.floor((sky.ra + half) / turn) + 1) * turn:
        dec = np.linspace(low, high, 181)
        found.append((*sky.xy(np.full(181, value), dec), f"{_degrees(value % 360, turn)}°", True))
    for value in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step:
        ra = sky.ra + np.linspace(-half, half, 181) * (1 if half < 180 else 0.9999)
        found.append((*sky.xy(ra, np.full(181, value)), f"{value:+.{_decimals(step)}f}°", False))
    lines: list[Series] = []
    places: list[tuple[float, float, str]] = []
    for x, y, name, meridian in found:
        inside = (x >= box[0]) & (x <= box[1]) & (y >= box[2]) & (y <= box[3])
        if not inside.any():
            continue
        lines.append(Line(np.where(inside, x, np.nan), np.where(inside, y, np.nan), colour=_RULE, width=0.6))
        edge = np.flatnonzero(inside)[np.argmin((y if meridian else x)[inside])]
        inwards = (0.0, 0.03 * (box[3] - box[2])) if meridian else (0.07 * (box[1] - box[0]), 0.0)
        places.append((float(x[edge]) + inwards[0], float(y[edge]) + inwards[1], name))
    columns = [np.array([place[k] for place in places], float) for k in (0, 1)]
    return lines, Words(columns[0], columns[1], [place[2] for place in places])


def _decimals(step: float) -> int:
    return max(0, int(np.ceil(-np.log10(step) - 1e-9)))


def _degrees(value: float, step: float) -> str:
    return f"{value:.{_decimals(step)}f}"


def radius_of(ra: F64, dec: F64, sky: SkyMap) -> float:
    """Degrees from the middle of a map to the farthest place."""
    return float(np.nanmax(separation(ra, dec, sky.ra, sky.dec)))
