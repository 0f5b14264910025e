"""From maps to objects: peaks of the map of centres, and to which of them each lit pixel belongs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from astroml_plugin.core.typing import F32, F64, I32, I64, Array, Bool

P = TypeVar("P", bound=np.generic)
"""Type of a pixel."""

SEPARATION = 2
"""Pixels that two peaks are farther apart than, in x or in y."""

_AT_ONCE = 2**18
"""Pixels of one batch when owners are sought."""

_APART = 1e5
"""Pixels between two patches of light where pixels look for their peak: they never find one of another patch."""


@dataclass(frozen=True)
class Pixels:
    """The lit pixels of n objects, m of them, row by row."""

    row: I64
    """(m,) row of the pixel."""
    column: I64
    """(m,) column of the pixel."""
    owner: I64
    """(m,) number of the object."""
    other: I64
    """(m,) number of the nearest other object of the same patch of light; -1 where there is none."""


@dataclass(frozen=True)
class Segmentation:
    """Segmentation of a field into n objects: label image, lit pixels, patch of light per object."""

    labels: I32
    """(h, w): 0 background, else the object's number plus 1."""
    pixels: Pixels
    """Lit pixels of all objects."""
    patch: I64
    """(n,) number of the patch of light that the object is in; objects without light have one of their own."""


def find_peaks(centre: F32, least: float) -> tuple[I64, I64]:
    """Rows and columns (n,), (n,) of the peaks above `least` of a map (h, w), row by row; NaN is nothing.

    A pixel is a peak where none within `SEPARATION` is higher, and of equal ones the first.
    """
    width = centre.shape[1] + 2 * SEPARATION
    padded = np.pad(centre, SEPARATION, constant_values=-np.inf).ravel()
    row, column = np.nonzero(centre > least)
    place = (row + SEPARATION) * width + column + SEPARATION
    value = padded[place]
    highest = np.ones(len(place), bool)
    for down in range(-SEPARATION, SEPARATION + 1):
        for right in range(-SEPARATION, SEPARATION + 1):
            step = down * width + right
            if step:
                beside = padded[place + step]
                highest &= ~(beside >= value) if step < 0 else ~(beside > value)
    return row[highest], column[highest]


def around(plane: NDArray[P], where: tuple[I64, I64], reach: int) -> NDArray[P]:
    """(n, 2 reach + 1, 2 reach + 1) pixels of a plane (h, w) about n pixels; beyond the border, those at the border."""
    side = np.arange(-reach, reach + 1)
    height, width = plane.shape
    rows = (where[0][:, None] + side).clip(0, height - 1)
    columns = (where[1][:, None] + side).clip(0, width - 1)
    values: NDArray[P] = plane[rows[:, :, None], columns[:, None, :]]
    return values


def centroids(weight: NDArray[np.floating], where: tuple[I64, I64]) -> tuple[Array, Array]:
    """x and y (n,), (n,) of the mean position of weights (n, k, k) about n pixels; the pixel's own where all are 0."""
    reach = weight.shape[-1] // 2
    side = np.arange(-reach, reach + 1)
    known = np.nan_to_num(weight.astype(np.float64))
    total = np.maximum(known.sum((1, 2)), 1e-12)
    return where[1] + (known.sum(1) @ side) / total, where[0] + (known.sum(2) @ side) / total


def segment(lit: Bool, offset_x: F32, offset_y: F32, peak: tuple[I64, I64]) -> Segmentation:
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
        owner[shared], other[shared] = _owners(where, inside[shared], (offset_x[where], offset_y[where]), peak, patch)
    dark = patch == 0
    patch[dark] = count + 1 + np.flatnonzero(dark)
    labels = np.zeros(lit.shape, np.int32)
    labels[row, column] = owner + 1
    labels[peak] = number + 1
    return Segmentation(labels, _with_peaks(Pixels(row, column, owner, other), labels, peak, dark), patch)


def in_patches(x: Array, y: Array, patch: Array) -> F64:
    """(n, 3) points for a tree, in which two patches are always far from each other."""
    return np.stack([x, y, patch * _APART], axis=1)


def _owners(
    where: tuple[I64, I64],
    inside: Array,
    offset: tuple[F32, F32],
    peak: tuple[I64, I64],
    patch: I64,
) -> tuple[I64, I64]:
    """Owner and nearest other of pixels in patches with several peaks, some at a time: a crowd lights every pixel."""
    candidates = np.flatnonzero(np.isin(patch, inside) & (patch > 0))
    tree = KDTree(in_patches(peak[1][candidates], peak[0][candidates], patch[candidates]))
    owner, other = np.empty(len(inside), np.int64), np.empty(len(inside), np.int64)
    for start in range(0, len(inside), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        row, column, within = where[0][part], where[1][part], inside[part]
        across, up = (np.nan_to_num(item[part].astype(np.float64)) for item in offset)
        nearest = _nearest(tree, in_patches(column + across, row + up, within), np.full(len(row), -1))
        owner[part] = candidates[nearest]
        other[part] = candidates[_nearest(tree, in_patches(column, row, within), nearest)]
    return owner, other


def _nearest(tree: KDTree, place: Array, but: I64) -> I64:
    """The nearest (n,) point of a tree to each place that is not `but`; of equally near ones the first, in any tree."""
    distance, number = tree.query(place, k=4)
    distance = np.where(number == but[:, None], np.inf, distance)
    near = distance <= distance.min(1, keepdims=True) + 1e-9
    first: I64 = np.where(near, number, np.iinfo(np.int64).max).min(1)
    return first


def _with_peaks(pixels: Pixels, labels: I32, peak: tuple[I64, I64], dark: Array) -> Pixels:
    """The pixels with those of peaks in the dark, and every peak's pixel its own."""
    row, column = (np.concatenate([a, b[dark]]) for a, b in zip((pixels.row, pixels.column), peak))
    owner = labels[row, column].astype(np.int64) - 1
    other = np.concatenate([pixels.other, np.full(int(dark.sum()), -1, np.int64)])
    before = np.concatenate([pixels.owner, owner[len(pixels.owner) :]])
    other = np.where((owner != before) & (other == owner), before, other)
    order = np.lexsort((column, row))
    return Pixels(row[order], column[order], owner[order], other[order])
