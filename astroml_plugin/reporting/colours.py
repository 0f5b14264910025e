"""One scale of colours for areas, in both kinds of figures: dark is little, and it reads in grey too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from astroml_plugin.core.typing import F64, Bool

Colour = tuple[int, int, int]
SCALE: tuple[tuple[float, Colour], ...] = (
    (0.0, (222, 235, 247)),
    (0.25, (150, 190, 220)),
    (0.5, (74, 137, 190)),
    (0.75, (28, 84, 145)),
    (1.0, (8, 34, 82)),
)
"""(place, colour) from the least to the most."""

NOTHING: Colour = (205, 205, 205)
"""Colour of areas without a value."""

_BUCKETS = 16


def at(place: float) -> Colour:
    """Colour at a place between 0 and 1."""
    places = [one for one, _ in SCALE]
    red, green, blue = (round(float(np.interp(place, places, [colour[k] for _, colour in SCALE]))) for k in range(3))
    return red, green, blue


def css(colour: Colour) -> str:
    """A colour as in style sheets."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def scaled(values: F64, *, log: bool) -> F64:
    """(n,) places between 0 and 1; NaN where there is no value (or none above 0, with `log`)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.log10(np.where(values > 0, values, np.nan)) if log else np.where(np.isfinite(values), values, np.nan)
    known = plain[np.isfinite(plain)]
    if not len(known):
        return np.full(len(values), np.nan)
    low, high = float(known.min()), float(known.max())
    return np.asarray((plain - low) / (high - low) if high > low else np.where(np.isfinite(plain), 0.5, np.nan))


def bucketed(values: F64, *, log: bool) -> Iterator[tuple[Colour, Bool]]:
    """(colour, which of the values have it (n,)), for few colours."""
    places = scaled(values, log=log)
    bucket = np.where(np.isfinite(places), np.minimum(places * _BUCKETS, _BUCKETS - 1), -1).astype(int)
    for number in np.unique(bucket).tolist():
        yield (NOTHING if number < 0 else at((number + 0.5) / _BUCKETS)), bucket == number
