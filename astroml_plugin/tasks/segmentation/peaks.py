"""From maps to objects: peaks of the map of centres, and to which of them each lit pixel belongs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Float = NDArray[np.float32]
Index = NDArray[np.int64]

SEPARATION = 2
"""Two peaks are more than so many pixels apart, in x or in y."""

_AT_ONCE = 2**18
"""Pixels whose owners are sought together."""

_APART = 1e5
"""Pixels between two patches of light where pixels look for their peak: they never find one of another patch."""


@dataclass(frozen=True)
class Pixels:
    """The lit pixels of n objects, m of them, row by row."""

    row: Index
    """(m,)"""
    column: Index
    """(m,)"""
    owner: Index
    """(m,) number of the object."""
    other: Index
    """(m,) number of the nearest other object of the same patch of light; -1 where there is none."""


@dataclass(frozen=True)
class Outlines:
    """Who is where."""

    labels: NDArray[np.int32]
    """(h, w): 0 background, else the object's number plus 1."""
    pixels: Pixels
    patch: Index
    """(n,) number of the patch of light that the object is in; objects without light have one of their own."""


def find_peaks(centre: Float, least: float) -> tuple[Index, Index]:
    """Rows and columns (n,), (n,) of the peaks above `least` of a map (h, w), row by row; NaN is nothing.

    A pixel is a peak where none within `SEPARATION` is higher, and of equal ones the first.
    """
    width = centre.shape[1] + 2 * SEPARATION
    padded = np.pad(centre, SEPARATION, constant_values=-np.inf).ravel()
    row, column = np.nonzero(centre > least)
    place = (row + SEPARATION) * width + column + SEPARATION
    value = padded[place]
    kept = np.ones(len(place), bool)
    for down in range(-SEPARATION, SEPARATION + 1):
        for right in range(-SEPARATION, SEPARATION + 1):
            step = down * width + right
            if step:
                beside = padded[place + step]
                kept &= ~(beside >= value) if step < 0 else ~(beside > value)
    return row[kept], column[kept]


def around(plane: Float, where: tuple[Index, Index], reach: int) -> NDArray[np.float32]:
    """(n, 2 reach + 1, 2 reach + 1) pixels of a plane (h, w) about n pixels; beyond the border, those at the border."""
    side = np.arange(-reach, reach + 1)
    height, width = plane.shape
    rows = (where[0][:, None] + side).clip(0, height - 1)
    columns = (where[1][:, None] + side).clip(0, width - 1)
    return plane[rows[:, :, None], columns[:, None, :]]


def centroids(weight: NDArray[np.floating], where: tuple[Index, Index]) -> tuple[NDArray, NDArray]:
    """x and y (n,), (n,) of the mean position of weights (n, k, k) about n pixels; the pixel's own where all are 0."""
    reach = weight.shape[-1] // 2
    side = np.arange(-reach, reach + 1)
    known = np.nan_to_num(weight.astype(np.float64))
    total = np.maximum(known.sum((1, 2)), 1e-12)
    return where[1] + (known.sum(1) @ side) / total, where[0] + (known.sum(2) @ side) / total


def outline(lit: NDArray[np.bool_], offset_x: Float, offset_y: Float, peak: tuple[Index, Index]) -> Outlines:
    """Give each lit pixel to a peak.

    In a patch of light (8-connected) with one peak, all pixels are its own; in one with several, each belongs to the
    peak nearest to where its offset points. A patch without a peak is nothing. A peak in the dark has its pixel.

    Args:
        lit: (h, w) foreground.
        offset_x, offset_y: (h, w) from the pixel to the centre of its object, pixels.
        peak: rows and columns of n peaks.
    """
    patches, count = ndimage.label(lit, np.ones((3, 3), bool))
    number = np.arange(len(peak[0]))
    patch = patches[peak].astype(np.int64)
    peaks_of = np.bincount(patch, minlength=count + 1)
    first = np.full(count + 1, -1, np.int64)
    first[patch[::-1]] = number[::-1]
    first[0], peaks_of[0] = -1, 0
    row, column = np.nonzero((peaks_of > 0)[patches])
    inside = patches[row, column]
    owner, other = first[inside], np.full(len(row), -1, np.int64)
    shared = np.flatnonzero(peaks_of[inside] > 1)
    if len(shared):
        where = row[shared], column[shared]
        owner[shared], other[shared] = _voted(where, inside[shared], (offset_x[where], offset_y[where]), peak, patch)
    dark = patch == 0
    patch[dark] = count + 1 + np.flatnonzero(dark)
    labels = np.zeros(lit.shape, np.int32)
    labels[row, column] = owner + 1
    labels[peak] = number + 1
    return Outlines(labels, _with_peaks(Pixels(row, column, owner, other), labels, peak, dark), patch)


def in_patches(x: NDArray, y: NDArray, patch: NDArray) -> NDArray[np.float64]:
    """(n, 3) places for a tree: those of other patches are far from each other."""
    return np.stack([x, y, patch * _APART], axis=1)


def _voted(
    where: tuple[Index, Index],
    inside: NDArray,
    offset: tuple[Float, Float],
    peak: tuple[Index, Index],
    patch: Index,
) -> tuple[Index, Index]:
    """Owner and nearest other of pixels in patches with several peaks, some at a time: a crowd lights every pixel."""
    chosen = np.flatnonzero(np.isin(patch, inside) & (patch > 0))
    tree = KDTree(in_patches(peak[1][chosen], peak[0][chosen], patch[chosen]))
    owner, other = np.empty(len(inside), np.int64), np.empty(len(inside), np.int64)
    for start in range(0, len(inside), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        row, column, within = where[0][part], where[1][part], inside[part]
        across, up = (np.nan_to_num(item[part].astype(np.float64)) for item in offset)
        nearest = _first(tree, in_patches(column + across, row + up, within), np.full(len(row), -1))
        owner[part] = chosen[nearest]
        other[part] = chosen[_first(tree, in_patches(column, row, within), nearest)]
    return owner, other


def _first(tree: KDTree, place: NDArray, but: Index) -> Index:
    """The nearest (n,) point of a tree to each place that is not `but`; of equally near ones the first, in any tree."""
    distance, number = tree.query(place, k=4)
    distance = np.where(number == but[:, None], np.inf, distance)
    near = distance <= distance.min(1, keepdims=True) + 1e-9
    found: Index = np.where(near, number, np.iinfo(np.int64).max).min(1)
    return found


def _with_peaks(pixels: Pixels, labels: NDArray[np.int32], peak: tuple[Index, Index], dark: NDArray) -> Pixels:
    """The pixels with those of peaks in the dark, and every peak's pixel its own."""
    row, column = (np.concatenate([a, b[dark]]) for a, b in zip((pixels.row, pixels.column), peak))
    owner = labels[row, column].astype(np.int64) - 1
    other = np.concatenate([pixels.other, np.full(int(dark.sum()), -1, np.int64)])
    before = np.concatenate([pixels.owner, owner[len(pixels.owner) :]])
    other = np.where((owner != before) & (other == owner), before, other)
    order = np.lexsort((column, row))
    return Pixels(row[order], column[order], owner[order], other[order])
