"""Pixels of a tile as they were read, and where stamps lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from astroml_plugin.core.errors import InputError

if TYPE_CHECKING:
    from astroml_plugin.sky.wcs import Box


@dataclass(frozen=True)
class Tile:
    """Pixels of one tile as read from a Survey, on the CPU."""

    image: np.ndarray
    """(band, y, x) float32, in the tile's units."""
    variance: np.ndarray | None = None
    """(band, y, x) float32, in units²; None where the survey has none."""
    mask: np.ndarray | None = None
    """(band, y, x) uint32 of `MaskBit`; None where the survey has none."""
    psf: np.ndarray | None = None
    """(band, cell_y, cell_x, psf_y, psf_x) float32; None where the survey has none."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in (self.image, self.variance, self.mask, self.psf) if array is not None)


@dataclass(frozen=True)
class SparseTile:
    """The parts of a tile that a few objects need, on the CPU."""

    shape: tuple[int, int, int]
    """(band, y, x) of the whole tile."""
    parts: tuple[tuple[Box, Tile], ...]
    """Boxes of the parts within the tile, and their pixels (no PSF); disjoint."""
    psf: np.ndarray | None = None
    """PSF cells as in `Tile`."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(part.nbytes for _, part in self.parts) + (0 if self.psf is None else self.psf.nbytes)


def band_index(have: Sequence[str], want: Sequence[str]) -> list[int]:
    """Positions of the bands `want` among `have`, matched by name.

    Raises:
        InputError: a band is missing; names what there is.
    """
    missing = [band for band in want if band not in have]
    if missing:
        raise InputError(
            f"band {', '.join(missing)} is missing: the source has {', '.join(have)}; "
            f"use a bundle trained on those bands or ingest the missing ones"
        )
    return [list(have).index(band) for band in want]


def stamp_origin(position: np.ndarray, size: int) -> np.ndarray:
    """First pixel of a stamp around `position` along one axis, (n,) int64 in the parent image."""
    return np.floor(np.asarray(position, np.float64) + 0.5).astype(np.int64) - size // 2


def whole_tile(sparse: SparseTile) -> Tile:
    """A tile's arrays with the parts that were read; what lies outside them is 0 and must not be cut."""
    names = ("image", "variance", "mask")
    arrays: dict[str, np.ndarray] = {}
    for box, part in sparse.parts:
        for name in names:
            if (values := getattr(part, name)) is not None:
                held = arrays.setdefault(name, np.zeros(sparse.shape, values.dtype))
                held[:, box.y0 : box.y1, box.x0 : box.x1] = values
    return Tile(**arrays, psf=sparse.psf)
