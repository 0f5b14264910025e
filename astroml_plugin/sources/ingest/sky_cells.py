"""Sky level and noise in the cells of a mesh over an image, block by block, so that no image is held whole.

The level of a cell is Source Extractor's, by `sep` (Bertin & Arnouts 1996, A&AS 117, 393; Barbary 2016, JOSS 1, 58),
once with all pixels, and again without those of the objects that then stand out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from scipy import ndimage

from astroml_plugin.core.typing import F32, F64, Bool
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.padding import fill_of, padding_of
from astroml_plugin.sources.quality import fine_noise, grid_step

_BIN = 2
"""Pixels along each axis that are averaged before a level is looked for, in cells of `_LARGE` pixels and more."""

_LARGE = 48

_SMOOTH, _STANDS_OUT, _GROWN = 1.5, 3.0, 3
"""Objects: sigma of a Gaussian filter, threshold in the noise of the filtered image, and pixels that outlines are grown
by; in averaged pixels."""

_STRIP, _EVERY, _FEWEST_STRIPS = 32, 256, 8
"""Rows of a strip, rows from one strip to the next, and strips without which an image is small."""

_BLOCK_PIXELS = 2**21
"""Pixels of a block, about: 8 MB of float32."""

APERTURE = 8
"""Side in pixels of the squares whose sums tell how noise adds up."""

_ENOUGH = 100_000
"""Pixels whose median is as good as that of more."""

_FEW = 1000
"""Fewer than this on a grid of pixels are not enough, however many there are."""

_LARGEST = 1e15
"""Pixels farther from the median are no light: squares of them leave float32."""

_SIGMA = 1.4826
"""Standard deviation over median absolute deviation."""

Read = Callable[[Box], tuple[np.ndarray, Bool]]
"""Pixels of a box of an image as (values, usable), both (y, x)."""


@dataclass(frozen=True)
class Cells:
    """Sky of an image in the cells of its mesh, (row, column) each; NaN where a cell has no usable pixel."""

    size: tuple[int, int]
    """(height, width) of a cell in pixels; the last of a row or column may be cut by the image's border."""
    shape: tuple[int, int]
    """(height, width) of the image in pixels."""
    level: F64
    """Level without the objects, in the image's unit."""
    noise: F64
    """Standard deviation of a pixel."""
    clear: F64
    """Share of a whole cell's pixels that are usable and no object."""
    usable: F64
    """Share of a whole cell's pixels that are usable."""
    crowded: F64
    """Level of all usable pixels, objects too: for cells that are nothing but objects."""
    fine: float
    """Noise of a pixel by the differences of neighbours, so that light that fills the image is none of it."""
    correlation: float
    """Standard deviation of sums of 8 x 8 pixels of sky over that of as much white noise; NaN where unknown."""
    padded: bool = False
    """Whether pixels of exactly 0 are padding beside a sky that is far from 0: they were left out."""
    fills: tuple[float, ...] = ()
    """Values of pixels that were never observed, such as -99; they were left out."""


def measure(read: Read, shape: tuple[int, int], mesh: int) -> Cells:
    """Sky of an image in cells of about `mesh` pixels."""
    height, width = (cell_side(side, mesh) for side in shape)
    return _in_cells(read, shape, height, width)


def look(read: Read, shape: tuple[int, int], mesh: int) -> Cells | None:
    """Sky of some rows of a large image, in cells of about `mesh` pixels along them; None of an image that is small.

    It reads `_STRIP` rows of every `_EVERY`: an eighth of the pixels.
    """
    strips = shape[0] // _EVERY
    if strips < _FEWEST_STRIPS or shape[1] < _EVERY:
        return None
    spare = (_EVERY - _STRIP) // 2

    def read_strips(box: Box) -> tuple[np.ndarray, Bool]:
        parts = [
            read(Box(box.x0, number * _EVERY + spare, box.x1, number * _EVERY + spare + _STRIP))
            for number in range(box.y0 // _STRIP, box.y1 // _STRIP)
        ]
        return np.concatenate([values for values, _ in parts]), np.concatenate([usable for _, usable in parts])

    return _in_cells(read_strips, (strips * _STRIP, shape[1]), _STRIP, cell_side(shape[1], mesh))


def _in_cells(read: Read, shape: tuple[int, int], height: int, width: int) -> Cells:
    """Sky in cells of a height and a width; `read` is asked for boxes of whole cells."""
    planes = np.full((5, -(-shape[0] // height), -(-shape[1] // width)), np.nan)
    sums, fine, padded, fills = [], [], False, set[float]()
    for box in _blocks(shape, height, width):
        values, usable = read(box)
        if (fill := fill_of(values, usable)) is not None:
            fills.add(fill)
        for fill in fills:
            usable = usable & (values != fill)
        if (padding := padding_of(values, usable)) is not None:
            usable, padded = usable & ~padding, True
        fine.append(fine_noise(values, usable))
        found, squares = _block(values.astype(np.float32, copy=False), usable & np.isfinite(values), height, width)
        row, column = box.y0 // height, box.x0 // width
        planes[:, row : row + found.shape[1], column : column + found.shape[2]] = found
        sums.append(squares)
    level, noise, clear, usable_share, crowded = planes
    known = [value for value in fine if np.isfinite(value)]
    return Cells(
        *((height, width), shape, level, noise, clear, usable_share, crowded),
        fine=float(np.median(known)) if known else float("nan"),
        correlation=_growth(np.concatenate(sums)),
        padded=padded,
        fills=tuple(sorted(fills)),
    )


def cell_side(side: int, mesh: int) -> int:
    """Even side of the cells that divide `side` pixels into parts of about `mesh`."""
    return 2 * -(-side // (2 * max(1, round(side / mesh))))


def _blocks(shape: tuple[int, int], height: int, width: int) -> Iterator[Box]:
    """Boxes of whole cells; where they begin follows from image and cell alone."""
    across = width * max(1, min(-(-shape[1] // width), _BLOCK_PIXELS // (height * width)))
    down = height * max(1, _BLOCK_PIXELS // (across * height))
    for y in range(0, shape[0], down):
        for x in range(0, shape[1], across):
            yield Box(x, y, min(x + across, shape[1]), min(y + down, shape[0]))


def _block(values: F32, usable: Bool, height: int, width: int) -> tuple[F64, F64]:
    """(level, noise, clear, usable, crowded) of the cells, (5, row, column), and (n,) sums in units of white noise."""
    step = _BIN if width >= _LARGE and height >= _STRIP else 1
    binned = height // step, width // step
    sample = _some(values, usable)
    pivot = float(np.median(sample)) if sample.size else 0.0
    plain = values - np.float32(pivot)
    np.clip(plain, -_LARGEST, _LARGEST, out=plain)
    plain[~usable] = 0
    light, weight = _averaged(plain, usable, step)
    bad = weight < 0.5
    whole = _share(weight, bad, *binned)
    nothing = np.full(whole.shape, np.nan)
    if bad.all():
        return np.stack([nothing, nothing, whole, whole, nothing]), np.zeros(0)
    first, crowded = _background(light, bad, *binned)
    masked = bad | _objects(light - first.back(), bad, first.rms())
    clear = _share(weight, masked, *binned)
    crowded = np.where(whole > 0, crowded + pivot, np.nan)
    if masked.all():
        return np.stack([nothing, nothing, clear, whole, crowded]), np.zeros(0)
    second, level = _background(light, masked, *binned)
    level = np.where(clear > 0, level + pivot, np.nan)
    back = second.back()
    sky = usable[::step, ::step] & ~masked
    residual = np.where(sky, plain[::step, ::step] - back, np.nan)  # one pixel of each that were averaged tells noise
    whole_sky = np.where(masked | (weight < 1), np.nan, light - back)
    squares = _square_sums(whole_sky, residual, step)
    return np.stack([level, _cell_noise(residual, *binned), clear, whole, crowded]), squares


def _background(light: np.ndarray, masked: Bool, height: int, width: int) -> tuple[Any, F64]:
    """The background, and its level (row, column) in the cells: without a filter, its values in their middle."""
    found = sep.Background(light, mask=masked, bw=width, bh=height, fw=1, fh=1)
    places = [
        np.minimum(np.arange(0, side, step) + (step - 1) / 2, side - 1)
        for side, step in zip(light.shape, (height, width), strict=True)
    ]
    at = np.meshgrid(*places, indexing="ij")
    return found, np.asarray(ndimage.map_coordinates(found.back().astype(np.float64), at, order=1, mode="nearest"))


def _averaged(values: F32, usable: Bool, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (float32) of the usable pixels of blocks, and the share of pixels that are usable; parts at the end too."""
    if step == 1:
        return values, usable.astype(np.float32)
    whole = bool(usable.all()) and not any(side % step for side in values.shape)
    total, count = np.zeros((2, *(-(-side // step) for side in values.shape)), np.float32)
    for y, x in np.ndindex(step, step):
        for plane, into in ((values, total), (usable, count)):
            part = plane[y::step, x::step]
            if not whole or into is total:
                into[: part.shape[0], : part.shape[1]] += part
    if whole:
        return total / step**2, np.ones_like(total)
    return total / np.maximum(count, 1), count / np.float32(step**2)


def _objects(residual: np.ndarray, bad: Bool, rms: np.ndarray) -> Bool:
    """Pixels of what stands out of the noise, and around it."""
    relative = np.where(bad | (rms <= 0), 0, residual / np.where(rms > 0, rms, 1))
    smooth = ndimage.gaussian_filter(relative, _SMOOTH)
    values = _some(smooth, ~bad)
    width = _SIGMA * float(np.median(np.abs(values - np.median(values))))
    if width <= 0:
        return np.zeros(bad.shape, bool)
    outline = smooth > _STANDS_OUT * width
    return np.asarray(ndimage.binary_dilation(outline, iterations=_GROWN))


def _some(values: F32, chosen: Bool) -> F32:
    """Some of the chosen values: enough of them for a median."""
    step = grid_step(values.size, _ENOUGH)
    some: F32 = values[::step, ::step][chosen[::step, ::step]]
    return some if some.size >= _FEW else values[chosen]


def _share(weight: np.ndarray, masked: Bool, height: int, width: int) -> F64:
    """Share of each whole cell's pixels that are not masked."""
    return _sums(np.where(masked, 0, weight), height, width) / (height * width)


def _sums(values: np.ndarray, height: int, width: int) -> F64:
    starts = [np.arange(0, side, step) for side, step in zip(values.shape, (height, width), strict=True)]
    rows = np.add.reduceat(values, starts[0], axis=0, dtype=np.float64)
    return np.asarray(np.add.reduceat(rows, starts[1], axis=1))


def _cell_noise(residual: F32, height: int, width: int) -> F64:
    """Standard deviation of the pixels of each cell by their median absolute deviation; NaN without pixels.

    Where most are equal, as in counts of few photons, it is their plain one.
    """
    rows, columns = (-(-side // step) for side, step in zip(residual.shape, (height, width), strict=True))
    found = np.full((rows, columns), np.nan)
    for row in range(rows):
        for column in range(columns):
            part = residual[row * height : (row + 1) * height, column * width : (column + 1) * width]
            sample = part[np.isfinite(part)]
            if sample.size:
                found[row, column] = _SIGMA * np.median(np.abs(sample)) or np.std(sample)
    return found


def _square_sums(sky: F32, residual: F32, step: int) -> F64:
    """(n,) sums of squares of 8 x 8 pixels of sky, in units of the standard deviation that white noise would have.

    Args:
        sky: (y, x) means of `step` x `step` pixels without their level, NaN where one of them is no sky.
        residual: (y, x) single pixels without their level, NaN where they are no sky.
        step: pixels along a side that were averaged.
    """
    side = APERTURE // step
    height, width = (length - length % side for length in sky.shape)
    sample = _some(residual, np.isfinite(residual))
    if not height or not width or not sample.size:
        return np.zeros(0)
    noise = _SIGMA * float(np.median(np.abs(sample)))
    parts = sky[:height, :width].reshape(height // side, side, width // side, side)
    sums = parts.sum((1, 3), dtype=np.float64).ravel() * step**2
    return sums[np.isfinite(sums)] / (APERTURE * noise) if noise > 0 else np.zeros(0)


def _growth(sums: F64) -> float:
    if sums.size < 50:
        return float("nan")
    return _SIGMA * float(np.median(np.abs(sums - np.median(sums))))
