"""Which row of a source counts: pure decisions on arrays, the same whatever else lies around.

Detections of two images are one source where each is the nearest of the other within the match radius of the pair. The
best row of all takes its partners, one in each other image; then the best of those that are left, and so on. So a row
does not count exactly when a better one that counts is its partner: what no other image shows always counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.typing import F64, I64, Array, Bool
from astroml_plugin.sky.wcs import unit_vectors

DEPTH_STEP = 0.1
"""Magnitudes by which depths are compared: images that are as good as equally deep share the sky by their edges."""


@dataclass(frozen=True)
class Detected:
    """n detections, in an order that does not depend on the files that they come from."""

    ra: F64
    """(n,) degrees."""
    dec: F64
    """(n,) degrees."""
    image: I64
    """(n,) numbers of their images, in order of the names."""
    unusable: Bool
    """(n,) whether the image shows the object badly: a pixel is masked, it is cut off."""
    depth: F64
    """(n,) AB magnitudes of 5 sigma, NaN where not known."""
    edge: F64
    """(n,) pixels to the image's edge, NaN where not known."""
    radius: F64
    """(n,) arcsec within which its partners lie; of a pair, the larger one counts."""

    def __len__(self) -> int:
        return len(self.ra)


def counted(rows: Detected) -> Bool:
    """(n,) True on exactly one row of each source."""
    better, other = _ordered(partners(rows), quality_rank(rows))
    undecided, counts = np.ones(len(rows), bool), np.zeros(len(rows), bool)
    while undecided.any():
        waiting, taken = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        waiting[other[undecided[better]]] = True
        taken[other[counts[better]]] = True
        counts |= undecided & ~waiting & ~taken
        undecided &= ~counts & ~taken
    return counts


def quality_rank(rows: Detected) -> I64:
    """(n,) place of each row from the best, 0, on: usable ones first, then by depth, distance from the edge, name.

    Rows of images whose depth is not known come after all others.
    """
    depth = np.nan_to_num(np.round(rows.depth / DEPTH_STEP), nan=-np.inf)
    edge = np.nan_to_num(rows.edge, nan=-np.inf)
    order = np.lexsort([np.arange(len(rows)), rows.image, -edge, -depth, rows.unusable])
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    return rank


def partners(rows: Detected) -> I64:
    """(k, 2) numbers of rows of different images that are nearest to each other within the match radius."""
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    towards = unit_vectors(rows.ra, rows.dec)
    from scipy.spatial import cKDTree  # here, as a run without overlaps does without what it takes to load

    pairs = cKDTree(towards).query_pairs(_chord(rows.radius.max()), output_type="ndarray").astype(np.int64)
    pairs = pairs[rows.image[pairs[:, 0]] != rows.image[pairs[:, 1]]]
    apart = np.linalg.norm(towards[pairs[:, 0]] - towards[pairs[:, 1]], axis=1)
    near = apart <= _chord(rows.radius[pairs].max(axis=1))
    pairs, apart = pairs[near], np.tile(apart[near], 2)
    source, target = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort([target, apart, rows.image[target], source])
    source, target = source[order], target[order]
    group = source * (int(rows.image.max()) + 1) + rows.image[target]
    first = np.diff(group, prepend=-1) != 0
    source, target = source[first], target[first]
    mutual = np.isin(source * len(rows) + target, target * len(rows) + source) & (source < target)
    return np.stack([source[mutual], target[mutual]], axis=1)


def _ordered(pairs: I64, rank: I64) -> tuple[I64, I64]:
    """(better, other) row of each pair."""
    one, two = pairs[:, 0], pairs[:, 1]
    first = rank[one] < rank[two]
    return np.where(first, one, two), np.where(first, two, one)


def _chord(arcsec: Array) -> Array:
    """Distance of unit vectors that are so far apart."""
    return 2 * np.sin(np.radians(np.asarray(arcsec) / 3600) / 2)


@dataclass(frozen=True)
class Given:
    """n rows of objects that were given: one for each image that has the object's place."""

    source: I64
    """(n,) number of the object; a row that stands twice in the table is two."""
    image: I64
    """(n,) numbers of the images, in order of the names."""
    by_place: Bool
    """(n,) whether it is the row farthest from its image's edge: one of each object."""
    lacking: I64
    """(n,) how much of the object the image lacks: 0 nothing, 1 pixels of its stamp, 2 all that was measured."""
    edge: F64
    """(n,) pixels to the image's edge, NaN where not known."""

    def __len__(self) -> int:
        return len(self.source)


def shown(rows: Given) -> tuple[Bool, Bool]:
    """(n,) True on one row of each object, and (n,) whether that is other rows than by place.

    The row by place counts, unless another image lacks less of the object.
    """
    edge = np.nan_to_num(rows.edge, nan=-np.inf)
    order = np.lexsort([rows.image, -edge, ~rows.by_place, rows.lacking, rows.source])
    first = np.zeros(len(rows), bool)
    first[order] = np.diff(rows.source[order], prepend=-1) != 0
    moved = np.bincount(rows.source[first & ~rows.by_place], minlength=rows.source.max(initial=-1) + 1) > 0
    return first, np.asarray(moved[rows.source], bool)
