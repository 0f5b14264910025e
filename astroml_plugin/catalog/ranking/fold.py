"""Folding near-duplicates of a ranked list into the best of them: pure decisions on positions and vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.typing import F32, F64, I64
from astroml_plugin.sky.wcs import separation, unit_vectors

_NEIGHBOURS = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]


@dataclass(frozen=True)
class Folded:
    """A ranked list without near-duplicates."""

    kept: I64
    """(m,) rows that stand for themselves, in the order of the list."""
    members: I64
    """(m,) rows that each of them stands for, itself included."""
    complete: bool
    """Whether one more row than wanted was found or the list ended: `members` would not change with a longer list's
    beginning."""


def fold(
    object_id: I64,
    ra: F64,
    dec: F64,
    wanted: int,
    *,
    radius: float = 0.0,
    vectors: F32 | None = None,
    vector_radius: float = 0.0,
) -> Folded:
    """Walk down a ranked list; a row that is a near-duplicate of one above it is folded into that one.

    A near-duplicate has the same `object_id`, or lies within `radius` on the sky of a kept row, or within
    `vector_radius` of its vector. The first kept row that fits takes it. The walk ends at the first row that would be
    the (wanted + 1)-th kept one, so that the answer does not depend on how much of the list was given.

    Args:
        object_id: (n,) in rank order.
        ra, dec: (n,) degrees; NaN where there is no position: such rows are near nobody.
        wanted: rows to keep at most.
        radius: degrees, great circle; 0: positions do not fold.
        vectors: (n, k), or None.
        vector_radius: Euclidean; 0: vectors do not fold.
    """
    kept: list[int] = []
    members: list[int] = []
    seen: dict[int, int] = {}
    cells = _Cells(ra, dec, radius)
    for row, identity in enumerate(object_id.tolist()):
        owner = seen.get(identity)
        if owner is None:
            owner = cells.owner(row)
        if owner is None and vectors is not None and vector_radius > 0 and kept:
            owner = _nearest(vectors, kept, row, vector_radius)
        if owner is None:
            if len(kept) == wanted:
                return _folded(kept, members, True)
            owner = len(kept)
            kept.append(row)
            members.append(0)
            cells.add(row, owner)
        seen.setdefault(identity, owner)
        members[owner] += 1
    return _folded(kept, members, False)


def _folded(kept: list[int], members: list[int], complete: bool) -> Folded:
    return Folded(np.array(kept, np.int64), np.array(members, np.int64), complete)


def _nearest(vectors: F32, kept: list[int], row: int, radius: float) -> int | None:
    """The first kept row whose vector is near; NaN is near nobody."""
    near = np.flatnonzero(((vectors[kept] - vectors[row]) ** 2).sum(1) <= radius**2)
    return int(near[0]) if len(near) else None


class _Cells:
    """Kept rows by cubes of the unit sphere, of the radius' chord on a side: what is near lies in the 27 around."""

    def __init__(self, ra: F64, dec: F64, radius: float) -> None:
        self.ra, self.dec, self.radius = ra, dec, radius
        self.cells: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        chord = 2 * np.sin(np.radians(min(radius, 180.0)) / 2) * (1 + 1e-9)
        unit = unit_vectors(ra, dec)
        self.placed = np.asarray(np.isfinite(unit).all(1) & (radius > 0))
        self.cell = np.zeros(unit.shape, np.int64)
        self.cell[self.placed] = np.floor(unit[self.placed] / chord).astype(np.int64)

    def owner(self, row: int) -> int | None:
        """Number of the first kept row within the radius."""
        if not self.placed[row] or not self.cells:
            return None
        x, y, z = self.cell[row].tolist()
        around = [pair for i, j, k in _NEIGHBOURS for pair in self.cells.get((x + i, y + j, z + k), ())]
        if not around:
            return None
        rows = [there for there, _ in around]
        near = separation(self.ra[rows], self.dec[rows], self.ra[row], self.dec[row]) <= self.radius
        return min((number for (_, number), close in zip(around, near, strict=True) if close), default=None)

    def add(self, row: int, number: int) -> None:
        """Remember a kept row."""
        if self.placed[row]:
            self.cells.setdefault(tuple(self.cell[row].tolist()), []).append((row, number))
