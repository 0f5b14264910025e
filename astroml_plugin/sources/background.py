"""The background of an image, and its noise, where nobody has taken them off: meshes of clipped medians.

The way of Source Extractor (Bertin & Arnouts 1996, A&AS 117, 393), for pictures and demonstrations; a survey's own
pipeline knows more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from astroml_plugin.core.typing import F32, F64, Bool

_CLIP = 3.0
"""Widths from the median beyond which pixels of a cell are light, not background."""
_ROUNDS = 4
_LEAST = 0.2
"""Part of a cell's pixels without which its neighbours say what its background is."""
_ROUNDING = 1e-7
"""Noise below this part of the background is rounding."""


def background(
    image: NDArray[np.floating], usable: Bool | None = None, *, cell: int = 64, scale: float = 1.5
) -> tuple[F32, F32]:
    """Background and noise per pixel, each interpolated between the cells of a mesh.

    The noise is that at the scale of small objects: of the image smoothed with a Gaussian of `scale` pixels, as the
    white noise that would leave as much of itself. Pixels of resampled images vary less from one to the next.

    Args:
        image: (y, x); pixels that are not finite are not looked at.
        usable: (y, x) False where masked.
        cell: side of the mesh's cells in pixels.
        scale: sigma in pixels.

    Returns:
        Both (y, x) float32, finite; the noise is above 0, 1 where there is none.
    """
    good = np.isfinite(image) if usable is None else np.isfinite(image) & usable
    plain = np.where(good, image, np.nan).astype(np.float64)
    level = _interpolated(_mesh(plain, cell)[0], plain.shape, slope=True)
    flat = np.where(good, plain - level, 0.0)
    weight = ndimage.gaussian_filter(good.astype(np.float64), scale)
    smooth = np.where(good, ndimage.gaussian_filter(flat, scale) / np.maximum(weight, 1e-6), np.nan)
    noise = _interpolated(_mesh(smooth, cell)[1], plain.shape, slope=False) * 2 * np.sqrt(np.pi) * scale
    real = noise > _ROUNDING * np.abs(level)
    return level.astype(np.float32), np.where(real, noise, 1).astype(np.float32)


def _mesh(image: F64, cell: int) -> tuple[F64, F64]:
    """Clipped median and width (rows, columns) of the cells; those without pixels or noise take their neighbours'."""
    rows, columns = (max(1, round(side / cell)) for side in image.shape)
    found = np.full((2, rows, columns), np.nan)
    for row, band in enumerate(np.array_split(image, rows)):
        for column, part in enumerate(np.array_split(band, columns, axis=1)):
            values = part[np.isfinite(part)]
            level, width = _clipped(values) if len(values) > _LEAST * part.size else (0.0, 0.0)
            if width > 0:
                found[:, row, column] = level, width
    if not np.isfinite(found[0]).any():
        every = image[np.isfinite(image)]
        found[:] = np.reshape(_clipped(every) if len(every) else (0.0, 0.0), (2, 1, 1))
    nearest = ndimage.distance_transform_edt(~np.isfinite(found[0]), return_distances=False, return_indices=True)
    level, width = (plane[tuple(nearest)] for plane in found)
    return level, width


def _clipped(values: F64) -> tuple[float, float]:
    """Median and 1.4826 times the median absolute deviation, without what lies far off."""
    level, width = 0.0, 0.0
    for _ in range(_ROUNDS):
        level = float(np.median(values))
        width = 1.4826 * float(np.median(np.abs(values - level)))
        kept = values[np.abs(values - level) <= _CLIP * width]
        if len(kept) in (0, len(values)):
            break
        values = kept
    return level, width


def _interpolated(mesh: F64, shape: tuple[int, ...], slope: bool) -> F64:
    """A mesh, each cell the median of 3 x 3, at every pixel: linear between cells, beyond them with `slope` or flat."""
    wider = np.pad(mesh, 2, mode="reflect", reflect_type="odd") if slope else np.pad(mesh, 2, mode="edge")
    wider = ndimage.median_filter(wider, 3, mode="nearest")
    axes = [(np.arange(side) + 0.5) * count / side + 1.5 for side, count in zip(shape, mesh.shape, strict=True)]
    at = np.meshgrid(*axes, indexing="ij")
    return np.asarray(ndimage.map_coordinates(wider, at, order=1, mode="nearest"))
