"""The sky of an image: what is taken off its pixels, and why.

A sky is known from the cells of a mesh (`sky_cells`). Cells that large objects cover take their neighbours' sky. Where
it cannot be told from light that fills the image, one level is taken off at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.sky_cells import Cells
from astroml_plugin.sources.quality import CLEAR_OF_ZERO

AUTO, LEVEL, OFF = "auto", "level", "off"

CHOICES = (AUTO, "mesh", LEVEL, OFF)
"""Values of the option `background`."""

MESH = 128
"""Default side of the mesh's cells in pixels."""

AT_ZERO = 0.5
"""A sky whose level is less than this part of the noise of a pixel is at zero: it stays as it is."""

BELOW_ZERO = 1.0
"""Nor may it lie lower than this part of the noise in a tenth of the image: only sky is below zero."""

ROUGH = 4.0
"""Scatter of the pixels of the sky over the noise by differences of neighbours in a row, beyond which it is said."""

_CLEARLY = 0.8
"""Part of the noise that these limits are taken of where only some of the pixels were looked at."""

_MOST_CELLS = 512
"""Cells along the longer side, at most: cells are larger in images beyond."""

_ENOUGH_CLEAR = 0.25
"""Share of a cell's pixels that must be free of objects."""

_STRUCTURE = 3.0
"""Noises of a pixel by which sky cells (90 % of them) differ at most from a smooth surface."""

_SHARE = 0.3
"""Share of the level by which they may differ from one another where that is more, as skies of plates do."""

_OUTLIER, _LEAST_EXCESS = 4.0, 0.3
"""A cell with a large object: its excess over the surface of the others in their scatter, and in noises of a pixel."""

_EDGE_EXCESS = 1.5
"""Excess, in the scatter of the others, of a cell beside one with a large object."""

_FILLED = 0.5
"""Share of cells with large objects beyond which the image is filled by objects."""

_DARKEST = 0.05
"""Share of the cells that are darkest, where all others are filled by objects."""

_ODD = 3.0
"""Scatters from the median of the cells about it beyond which a cell is odd."""

_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Sky:
    """Level or mesh that is taken off one band of one image."""

    cells: F64 | None = None
    """(row, column) level of each cell of the mesh, one cell for one level; None where nothing is taken off."""
    size: tuple[int, int] = (0, 0)
    """(height, width) of a cell in pixels."""
    level: float = float("nan")
    """Median level of the sky in the image's stored unit, taken off or not; NaN where it is not known."""
    noise: float = float("nan")
    """Median noise of a pixel."""
    correlation: float = float("nan")
    """Noise of sums of 8 x 8 pixels over that of as much white noise."""
    covered: float = 0.0
    """Share of the cells that large objects cover: neighbours tell their sky."""
    doubt: str = ""
    """Why it may be wrong."""
    fine: float = float("nan")
    """Noise of a pixel by differences of neighbours in a row."""
    padded: bool = False
    """Whether pixels of exactly 0 are padding where the level is clear of 0."""
    fills: tuple[float, ...] = ()
    """Values of pixels that were never observed, such as -99."""
    in_part: bool = False
    """Whether only some of the rows were looked at."""

    @property
    def taken(self) -> bool:
        """Whether anything is taken off."""
        return self.cells is not None

    @property
    def doubts(self) -> list[str]:
        """Sentences on what may be wrong with the sky, and on noise that is not that of single pixels."""
        found = [f"the background is doubtful: {self.doubt}"] if self.doubt else []
        if self.fills:
            told = " and of ".join(f"{value:g}" for value in self.fills)
            found.append(f"pixels of exactly {told} are far from all others: they are taken as never observed")
        if not self.doubt and self.noise > ROUGH * self.fine > 0:
            found.append(
                f"pixels of its sky scatter {self.noise / self.fine:.3g} times as much as neighbours in a row differ, "
                "as with stripes, fringes or resampled pixels: bundles that find objects may take them for objects"
            )
        return found

    @property
    def mesh(self) -> int:
        """Side of the cells in pixels; 0 for one level, or where nothing is taken off."""
        return max(self.size) if self.cells is not None and self.cells.size > 1 else 0

    def at(self, box: Box, step: int = 1) -> F64:
        """Level (y, x) at every `step`-th pixel of a box: a cubic spline through the cells, the same whatever the box
        is."""
        assert self.cells is not None
        places = [np.arange(start, stop, step) for start, stop in ((box.y0, box.y1), (box.x0, box.x1))]
        if self.cells.size == 1:
            return np.full((len(places[0]), len(places[1])), self.cells[0, 0])
        wider = _wider(self.cells, 2)
        coefficients = ndimage.spline_filter(wider, 3, mode="mirror")
        rows, columns = ((place + 0.5) / side + 1.5 for place, side in zip(places, self.size, strict=True))
        found = np.empty((len(rows), len(columns)))
        for start in range(0, len(rows), _ROWS):
            at = np.meshgrid(rows[start : start + _ROWS], columns, indexing="ij")
            found[start : start + _ROWS] = ndimage.map_coordinates(
                coefficients, at, order=3, mode="mirror", prefilter=False
            )
        return found


_ROWS = 512


def mesh_side(mesh: int | None, shape: tuple[int, int]) -> int:
    """Side of the cells asked for, or the default, larger where there would be too many."""
    return max(MESH if mesh is None else mesh, -(-max(shape) // _MOST_CELLS))


def sky_of(cells: Cells, choice: str) -> Sky:
    """The sky to be taken off.

    Args:
        cells: of the image.
        choice: "mesh", "level" (one level), or "auto", which leaves a sky that is at zero, and takes off one level at
            most where objects fill the image.
    """
    level, valid = _levels(cells)
    if not valid.any():
        return Sky(fills=cells.fills)
    found, sky = _found(cells, level, valid)
    noise, middle = found.noise, found.level
    if choice == AUTO and _at_zero(level[sky], noise):
        return found
    filled = _fills(level, sky, noise) or found.covered > _FILLED
    if filled and choice == AUTO:
        darkest = float(np.quantile(level[valid], _DARKEST))
        takes = darkest > CLEAR_OF_ZERO * cells.fine
        doubt = (
            f"its levels differ too much for a sky, as if objects fill it: "
            f"{'only the level of its darkest part' if takes else 'nothing'} is taken off (--background mesh takes off "
            "all that is smoother than its cells)"
        )
        found = replace(found, doubt=doubt)
        return replace(found, cells=np.array([[darkest]]), level=darkest) if takes else found
    if choice == LEVEL:
        level_of_all = float(np.quantile(level[valid], _DARKEST)) if filled else middle
        return replace(found, cells=np.array([[level_of_all]]), level=level_of_all)
    if filled:
        sky = valid
    mesh = _smoothed(_filled(level, sky))
    low, high = np.quantile(mesh, [0.05, 0.95])
    doubt = ""
    if choice == AUTO and high - low > _STRUCTURE * noise:
        doubt = (
            f"its level varies by {(high - low) / noise:.3g} times the noise of a pixel over the image, and a mesh "
            "takes that off: if it is light of objects, give --background level"
        )
    return replace(found, cells=mesh, doubt=doubt)


def sky_at_zero(cells: Cells) -> Sky | None:
    """The sky where it is clearly at zero by some cells of an image, with nothing to be taken off; else None."""
    level, valid = _levels(cells)
    if not valid.any():
        return None
    found, sky = _found(cells, level, valid)
    clearly = found.covered <= _FILLED and _at_zero(level[sky], _CLEARLY * found.noise)
    return replace(found, in_part=True) if clearly and (cells.clear[valid] >= _ENOUGH_CLEAR).all() else None


def _levels(cells: Cells) -> tuple[F64, Bool]:
    """Level of each cell, and whether it is known."""
    valid = (cells.clear >= _ENOUGH_CLEAR) & (cells.noise > 0) & np.isfinite(cells.level)
    if valid.sum() >= 0.25 * (cells.usable > 0).sum():
        return cells.level, valid
    level = np.where(valid, cells.level, cells.crowded)  # crowded everywhere: the level of everything is what there is
    return level, valid | ((cells.usable >= _ENOUGH_CLEAR) & (cells.noise > 0) & np.isfinite(level))


def _found(cells: Cells, level: F64, valid: Bool) -> tuple[Sky, Bool]:
    """The sky with nothing taken off, and which cells are sky."""
    noise = float(np.median(cells.noise[valid]))
    covered = _covered(level, valid, noise)
    sky = valid & ~covered
    middle, share = float(np.median(level[sky])), float(covered.sum() / valid.sum())
    found = Sky(
        *(None, cells.size, middle, noise, cells.correlation, share),
        fine=cells.fine,
        padded=cells.padded,
        fills=cells.fills,
    )
    return found, sky


def _at_zero(level: F64, noise: float) -> bool:
    low = float(np.quantile(level, 0.1))
    return abs(float(np.median(level))) < AT_ZERO * noise and low > -BELOW_ZERO * noise


def _fills(level: F64, sky: Bool, noise: float) -> bool:
    """Whether the levels of the sky's cells differ more than those of a sky, from one another or a smooth surface."""
    rest = (level - _surface(np.where(sky, level, 0.0), sky))[sky]
    spread, roughness = (float(np.subtract(*np.quantile(values, [0.95, 0.05]))) for values in (level[sky], rest))
    return roughness > _STRUCTURE * noise or spread > max(
        _STRUCTURE * noise, _SHARE * abs(float(np.median(level[sky])))
    )


def _covered(level: F64, valid: Bool, noise: float) -> Bool:
    """Cells with large objects: above a smooth surface through the others, and their neighbours that are so in part."""
    kept = valid.copy()
    excess = np.zeros(level.shape)
    scatter = 0.0
    for _ in range(_ROUNDS):
        excess = level - _surface(level, kept)
        scatter = 1.4826 * float(np.median(np.abs(excess[kept])))
        least = _LEAST_EXCESS * noise
        wanted = valid & (excess <= max(_OUTLIER * scatter, least)) & (excess >= -2 * max(_OUTLIER * scatter, least))
        if (wanted == kept).all() or wanted.sum() < 3:
            break
        kept = wanted
    bright = valid & (excess > max(_OUTLIER * scatter, _LEAST_EXCESS * noise))
    fringe = valid & (excess > max(_EDGE_EXCESS * scatter, 0.5 * _LEAST_EXCESS * noise))
    return np.asarray(bright | (ndimage.binary_dilation(bright, np.ones((3, 3))) & fringe))


def _surface(level: F64, kept: Bool) -> F64:
    """Plane or paraboloid (row, column) through the kept cells; flat where they are few."""
    axes = [np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in level.shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    across = min(level.shape)
    terms = [np.ones(level.shape)]
    if across >= 3:
        terms += [x, y]
    if across >= 5:
        terms += [x * x, x * y, y * y]
    if kept.sum() < 2 * len(terms):
        return np.full(level.shape, float(np.median(level[kept])))
    matrix = np.stack(terms, axis=-1)
    factors = np.linalg.lstsq(matrix[kept], level[kept], rcond=None)[0]
    return np.asarray(matrix @ factors)


def _filled(level: F64, sky: Bool) -> F64:
    """Cells without sky take the surface of the others, and what the nearest of them differ from it."""
    if sky.all():
        return level
    surface = _surface(np.where(sky, level, 0.0), sky)
    rest = np.where(sky, level - surface, 0.0)
    found = np.zeros(level.shape)
    weight = np.zeros(level.shape)
    for sigma in (1.0, 2.0, 4.0, 8.0):
        near = ndimage.gaussian_filter(sky.astype(np.float64), sigma, mode="constant")
        new = (weight == 0) & (near > 0.05)
        found = np.where(new, ndimage.gaussian_filter(rest, sigma, mode="constant") / np.maximum(near, 1e-9), found)
        weight = weight + new
    return np.where(sky, level, surface + found)


def _smoothed(level: F64) -> F64:
    """Cells of which one stands out of the 3 x 3 about it, beyond the slope there, as their median."""
    if min(level.shape) < 3:
        return level
    surface = _surface(level, np.ones(level.shape, bool))
    rest = level - surface
    middle = ndimage.median_filter(_wider(rest, 1), 3, mode="nearest")[1:-1, 1:-1]
    scatter = 1.4826 * float(np.median(np.abs(rest - middle)))
    return np.asarray(surface + np.where(np.abs(rest - middle) > _ODD * scatter, middle, rest))


def _wider(cells: F64, by: int) -> F64:
    """Cells beyond the image's border, so that a slope goes on there."""
    for axis in (0, 1):
        pad = [(by, by) if number == axis else (0, 0) for number in (0, 1)]
        if cells.shape[axis] > 1:
            parts = cells
            for _ in range(by):
                one = [(1, 1) if number == axis else (0, 0) for number in (0, 1)]
                parts = np.pad(parts, one, mode="reflect", reflect_type="odd")
            cells = parts
        else:
            cells = np.pad(cells, pad, mode="edge")
    return cells
