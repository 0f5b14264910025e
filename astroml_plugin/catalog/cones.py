"""Circles on the sky as ranges of HEALPix indices and as SQL."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.schema import HEALPIX
from astroml_plugin.core.astropy_later import healpix, u
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64
from astroml_plugin.sky.circles import Circle, circle_of
from astroml_plugin.sky.wcs import HEALPIX_ORDER

Cone = Circle
"""Right ascension, declination, radius in degrees, ICRS."""

ConeLike = Cone | tuple[Any, Any, Any] | tuple[Any, Any] | str
"""Cones as people give them: see `checked_cone`."""

_RANGES = 48
"""HEALPix ranges named in the SQL of a cone."""


def checked_cone(cone: ConeLike) -> Cone:
    """A cone with right ascension in [0, 360).

    Args:
        cone: numbers, coordinates and angles of astropy, or text: see `astroml_plugin.sky.circles.circle_of`.

    Raises:
        InputError: it is no circle.
    """
    ra, dec, radius = circle_of(cone)
    if not all(map(math.isfinite, (ra, dec, radius))):
        raise InputError(f"cone {cone}: give right ascension, declination and radius in degrees")
    if not -90 <= dec <= 90 or not 0 < radius <= 180:
        raise InputError(f"cone {ra}, {dec}, {radius}: declination must be within ±90 and radius in (0, 180] degrees")
    return ra % 360.0, dec, radius


def cone_ranges(ra: float, dec: float, radius: float) -> I64:
    """(k, 2) sorted half-open ranges of nested order-29 indices that together hold every position of the cone."""
    if radius >= 60:
        return np.array([[0, 12 << (2 * HEALPIX_ORDER)]], np.int64)
    order = int(np.clip(np.floor(np.log2(58.6 / radius)) + 3, 0, 22))
    cell = 58.6 / (1 << order)
    grid = healpix.HEALPix(nside=1 << order, order="nested")
    cells = np.sort(grid.cone_search_lonlat(ra * u.deg, dec * u.deg, radius=(radius + 1.5 * cell) * u.deg))
    breaks = np.flatnonzero(np.diff(cells) > 1)
    first, last = cells[np.r_[0, breaks + 1]], cells[np.r_[breaks, len(cells) - 1]]
    return np.stack([first, last + 1], axis=1).astype(np.int64) << (2 * (HEALPIX_ORDER - order))


def cone_sql(cone: Cone) -> str:
    """SQL condition of the rows within a cone."""
    ra, dec, radius = (math.radians(value) for value in cone)
    merged = _fewer(cone_ranges(*cone))
    column = sql.name(HEALPIX)
    near = " OR ".join(f"{column} BETWEEN {low} AND {high - 1}" for low, high in merged.tolist())
    distance = (
        f"2 * asin(sqrt(least(1.0, pow(sin((radians(dec) - {dec!r}) / 2), 2) "
        f"+ cos(radians(dec)) * {math.cos(dec)!r} * pow(sin((radians(ra) - {ra!r}) / 2), 2))))"
    )
    hull = f"{column} BETWEEN {merged[0, 0]} AND {merged[-1, 1] - 1}"
    return f"{hull} AND ({near}) AND {distance} <= {radius!r}"


def _fewer(ranges: I64) -> I64:
    """At most `_RANGES` ranges that cover the same: the smallest gaps are closed."""
    if len(ranges) <= _RANGES:
        return ranges
    gaps = ranges[1:, 0] - ranges[:-1, 1]
    kept = np.sort(np.argsort(gaps, kind="stable")[-(_RANGES - 1) :])
    return np.stack([ranges[np.r_[0, kept + 1], 0], ranges[np.r_[kept, len(ranges) - 1], 1]], axis=1)
