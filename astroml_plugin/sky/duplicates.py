"""Objects that occur twice: by pixels, by position on the sky, by id. For splits that must not share objects."""

from __future__ import annotations

import hashlib
from itertools import product

import numpy as np

_SAME_PLACE = np.radians(1 / 3600)
_CELLS = 1 << 20
"""More than there are cells along an axis of space: three numbers of them make one of 60 bits."""


def pixel_hashes(image: np.ndarray) -> np.ndarray:
    """(n,) uint64 of the bytes of each stamp (n, band, h, w); 0 for a stamp whose every band is constant.

    Two different stamps share a hash with probability 2⁻⁶⁴ (BLAKE2b, RFC 7693, of 8 bytes).
    """
    stamps = np.ascontiguousarray(image)
    if len(stamps) == 0:
        return np.zeros(0, np.uint64)
    words = stamps.view(f"u{stamps.itemsize}").reshape(len(stamps), stamps.shape[1], -1)
    rows = words.reshape(len(stamps), -1)
    found = np.frombuffer(b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64).copy()
    suspects = np.flatnonzero((words[:, :, words.shape[2] // 2] == words[:, :, 0]).all(1))
    flat = (words[suspects] == words[suspects, :, :1]).all((1, 2))
    found[suspects[flat]] = 0
    return found


def place_groups(position: np.ndarray) -> tuple[np.ndarray, ...]:
    """Eight (n,) int64 group numbers for ra, dec (n, 2) in degrees: cells of an arcsec, and those moved by half
    a cell along each axis of space.

    Places within half an arcsec share a cell of at least one of them, places beyond 1.8 arcsec of none.
    """
    ra, dec = np.radians(position).T
    unit = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1) / _SAME_PLACE
    halves = [np.floor(unit + shift).astype(np.int64) + _CELLS // 2 for shift in (0.0, 0.5)]
    return tuple(
        (halves[i][:, 0] * _CELLS + halves[j][:, 1]) * _CELLS + halves[k][:, 2] for i, j, k in product((0, 1), repeat=3)
    )


def behind(group: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, int]:
    """Which members of a group (n,) lie on a later side than its first member.

    Returns:
        (n,) bool, and how many groups have members on more than one side, counted once for each further side.
    """
    if len(group) == 0:
        return np.zeros(0, bool), 0
    names, number = np.unique(group, return_inverse=True)
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, number, side)
    pairs = np.unique(np.stack([number, side]), axis=1).shape[1]
    return side > first[number], pairs - len(names)


def shared_places(position: np.ndarray, side: np.ndarray) -> int:
    """How many places of about an arcsec have objects on more than one side.

    Args:
        position: (n, 2) ra, dec in degrees.
        side: (n,) number of the split.
    """
    return max((behind(group, side)[1] for group in place_groups(position)), default=0) if len(position) else 0
