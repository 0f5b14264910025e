"""Objects that occur twice: by pixels, by position on the sky, by id. For splits that must not share objects."""

from __future__ import annotations

import hashlib

import numpy as np

from astroml_plugin.core.hashing import mixed
from astroml_plugin.core.typing import F32, F64, I64, U64, Array, Bool

CENTRE = 24
"""Side in pixels of what `centre_digests` looks at."""

_CELL = 0.5 / 3600
"""Degrees of a cell of `place_cells`."""

_ROW = 2**22
"""More cells than a row of them has."""

_CHORD = 2 * np.sin(np.radians(0.5 / 3600) / 2)
"""Distance of unit vectors that are half an arcsec apart."""


def pixel_hashes(image: Array) -> U64:
    """(n,) uint64 of the bytes of each stamp (n, band, h, w); 0 for a stamp whose every band is constant.

    Two different stamps share a hash with probability 2⁻⁶⁴ (BLAKE2b, RFC 7693, of 8 bytes).
    """
    stamps = np.ascontiguousarray(image)
    if len(stamps) == 0:
        return np.zeros(0, np.uint64)
    words = stamps.view(f"u{stamps.itemsize}").reshape(len(stamps), stamps.shape[1], -1)
    rows = words.reshape(len(stamps), -1)
    hashes = np.frombuffer(
        b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64
    ).copy()
    suspects = np.flatnonzero((words[:, :, words.shape[2] // 2] == words[:, :, 0]).all(1))
    flat = (words[suspects] == words[suspects, :, :1]).all((1, 2))
    hashes[suspects[flat]] = 0
    return hashes


def centre_digests(image: Array) -> U64:
    """(n,) uint64 of the pixels about the centre of each stamp (n, band, h, w); 0 where they are constant.

    A side of the centre is `CENTRE` pixels, one less where that of the stamp is odd. The values of a band are taken as
    float32 in rising order: the kind of number that a store keeps, flips and quarter turns do not matter.
    """
    return digests_of(ordered_centres(image))


def ordered_centres(image: Array) -> F32:
    """(n, band, k) float32 values of the pixels about the centre of stamps (n, band, h, w), in rising order."""
    stamps = np.asarray(image)
    for axis in (2, 3):
        side = stamps.shape[axis]
        size = min(side, CENTRE - side % 2)
        stamps = stamps.take(range(side // 2 - size // 2, side // 2 - size // 2 + size), axis)
    shape = (len(stamps), stamps.shape[1], stamps.shape[2] * stamps.shape[3])
    values = stamps.reshape(shape).astype(np.float32) + np.float32(0)  # -0 becomes 0
    values[np.isnan(values)] = np.nan
    values.sort(axis=2)
    return values


def digests_of(values: F32) -> U64:
    """(n,) uint64 of `ordered_centres`; 0 where they are constant."""
    if len(values) == 0:
        return np.zeros(0, np.uint64)
    words = values.view(np.uint32)
    rows = words.reshape(len(values), -1)
    digests = np.frombuffer(
        b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64
    ).copy()
    digests[(words[:, :, 0] == words[:, :, -1]).all(1)] = 0
    return digests


def place_cells(position: F64, step_dec: int = 0, step_ra: int = 0) -> U64:
    """(n,) mixed numbers of cells of half an arcsec on the sky, or of those so many cells beside them.

    Args:
        position: (n, 2) ra, dec in degrees.
        step_dec: rows towards the north.
        step_ra: cells towards the east.
    """
    row = np.floor((position[:, 1] + 90) / _CELL).astype(np.int64) + step_dec
    width = np.maximum(np.cos(np.radians((row + 0.5) * _CELL - 90)), 1e-9)
    around = np.maximum(np.floor(360 * width / _CELL).astype(np.int64), 1)
    column = np.floor(position[:, 0] % 360 / 360 * around).astype(np.int64) + step_ra
    return mixed(row * _ROW + column % around)


def place_groups(position: F64) -> I64:
    """(n,) group numbers for ra, dec (n, 2) in degrees: neighbours within half an arcsec share one, chains too."""
    ra, dec = np.radians(position).T
    unit = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    # here, as a run that compares nothing does without what they take to load
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    pairs = KDTree(unit).query_pairs(_CHORD, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(unit), len(unit)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def leaked_rows(group: I64, split: I64) -> tuple[Bool, int]:
    """Rows whose duplicate group (n,) occurs in an earlier split (n,): train comes before validation, then test.

    Returns:
        (n,) bool, and how many groups have members in more than one split, counted once for each further split.
    """
    if len(group) == 0:
        return np.zeros(0, bool), 0
    names, number = np.unique(group, return_inverse=True)
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, number, split)
    pairs = np.unique(np.stack([number, split]), axis=1).shape[1]
    return split > first[number], pairs - len(names)


def shared_places(position: F64, split: I64) -> int:
    """Number of places on the sky that have objects in more than one split.

    Args:
        position: (n, 2) ra, dec in degrees.
        split: (n,) number of the split.
    """
    return leaked_rows(place_groups(position), split)[1] if len(position) else 0
