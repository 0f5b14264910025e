"""Boxes of pixels as LSST code writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import Box


def box_of(given: Any) -> Box:
    """A box as ours: half-open, in pixels of the parent image (of a patch: of its tract).

    Args:
        given: a `Box`, an `lsst.geom.Box2I`, an `lsst.images.Box`, or x0, y0, x1, y1.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, Box):
        return given
    if all(hasattr(given, name) for name in ("getBeginX", "getBeginY", "getEndX", "getEndY")):
        return Box(given.getBeginX(), given.getBeginY(), given.getEndX(), given.getEndY())
    if all(hasattr(getattr(given, axis, None), "stop") for axis in "xy"):
        return Box(given.x.start, given.y.start, given.x.stop, given.y.stop)
    if isinstance(given, Sequence) and len(given) == 4 and all(type(value) is int for value in given):
        return Box(*given)
    raise InputError(
        f"bbox {given!r} is no box of pixels: give lsst.geom.Box2I, lsst.images.Box, or whole numbers x0, y0, x1, y1"
    )
