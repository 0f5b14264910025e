"""Measurements of `networks.structure` and `networks.autoencoder` by compiled code (see `pixels.native`)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from astroml_plugin.pixels.native import Array, Shape, address, call, planes, same_shape

SMALLEST, LARGEST = 31, 251
"""Odd sides of stamps in pixels that the compiled code takes."""


class _Places(ctypes.Structure):
    _fields_ = [
        ("side", ctypes.c_int64),
        ("rings", ctypes.c_int64),
        ("radius", ctypes.c_void_p),
        ("ring", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("areas", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Places:
    """Where the pixels of a square stamp lie, as `networks.structure` has it."""

    radius: Array
    """(side, side) float32, pixels from the middle."""
    ring: Array
    """(side, side) int32, number of the ring; as many as there are rings: of none."""
    counts: Array
    """(rings,) float32, pixels of each ring."""
    areas: Array
    """(rings,) float32, area of each ring."""


def structure(image: Array, places: Places) -> tuple[Array, Array]:
    """(n, 8) columns of `networks.structure.PARTS` without the line, and for it (n, m, m) pixels of twice the size.

    Args:
        image: (n, band, side, side) float32, of an odd side.
        places: of that side.

    Raises:
        ValueError: another side than that of the places, or one that is even, too small or too large.
    """
    side = int(image.shape[-1])
    if image.shape[-2:] != places.radius.shape or side % 2 == 0 or not SMALLEST <= side <= LARGEST:
        raise ValueError(f"stamps of {image.shape[-2:]} pixels")
    small = (side - 1) // 2
    out, clipped = np.empty((len(image), 8), np.float32), np.empty((len(image), small, small), np.float32)
    pixels, own = planes(image, np.float32)
    tables = (address(table) for table in (places.radius, places.ring, places.counts, places.areas))
    given = _Places(side, len(places.counts), *tables)
    call(
        "astroml_structure",
        *(ctypes.byref(pixels), ctypes.byref(Shape(*image.shape)), ctypes.byref(given), out, clipped),
    )
    del own
    return out, clipped


def asinh(values: Array, unit: float) -> Array:
    """asinh of values (float32, of any shape) over a unit."""
    given = np.ascontiguousarray(values)
    out = np.empty(given.shape, np.float32)
    call("astroml_asinh", given, ctypes.c_int64(given.size), *(ctypes.c_float(item) for item in (0.0, unit, 1.0)), out)
    return out


def chi_square(image: Array, model: Array, weight: Array, softening: float, relative: float) -> Array:
    """(n, band) of `networks.autoencoder.chi_square` from float32 arrays (n, band, y, x).

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(image, model, weight)
    given = [np.ascontiguousarray(item) for item in (image, model, weight)]
    out = np.empty(image.shape[:2], np.float32)
    sizes = ctypes.c_int64(out.size), ctypes.c_int64(image.shape[2] * image.shape[3])
    call("astroml_chi", *given, *sizes, ctypes.c_float(softening), ctypes.c_float(relative), out)
    return out
