"""Options of cutting stamps, and what a cut gives back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from astroml_plugin.catalog.objects.carried import ALL
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.results import Result
from astroml_plugin.core.typing import Arcsec

Progress = Callable[[str, int, int], None]
"""Called with (what: "objects: place", "objects: sort", "cut" or "pack", units done, units known of)."""

LARGEST = 8192
"""Pixels of a side, at most."""


@dataclass(frozen=True)
class CutoutOptions:
    """Which stamps are cut."""

    size: int = 64
    """Side of a stamp in pixels."""
    size_arcsec: Arcsec | None = None
    """Side of a stamp in arcsec, instead of pixels; rounded up to whole pixels."""
    bands: tuple[str, ...] | None = None
    """Bands by name, in this order; default: all of the survey."""
    labels: tuple[str, ...] = (ALL,)
    """Columns of the objects table that come along as labels; default: all of single values."""
    every_image: bool = False
    """A stamp from each image that shows an object; default: one from the image whose edge is farthest away."""
    block: int | None = None
    """Stamps per block of the output; default by their size and number, at most about 32 MB."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST:
            raise InputError(f"a stamp cannot have {self.size} pixels a side: give 1 to {LARGEST}")
        if self.size_arcsec is not None and not 0 < self.size_arcsec < math.inf:
            raise InputError(f"a stamp cannot be {self.size_arcsec} arcsec wide: give a number above 0")
        if self.block is not None and self.block < 1:
            raise InputError(f"{self.block} stamps in a block: give 1 or more")

    def pixels(self, scale: float | None) -> int:
        """Side in pixels, on images of `scale` arcsec per pixel.

        Raises:
            InputError: arcsec are asked for and the scale is not known, or the stamp gets too large.
        """
        if self.size_arcsec is None:
            return self.size
        if scale is None:
            raise InputError("the survey has no world coordinates, so arcsec mean nothing: give --size in pixels")
        side = math.ceil(self.size_arcsec / scale - 1e-6)
        if side > LARGEST:
            raise InputError(f"{self.size_arcsec} arcsec are {side} pixels of {scale:.3g} arcsec: {LARGEST} at most")
        return max(1, side)


@dataclass(frozen=True, repr=False)
class CutoutsResult(Result):
    """Summary of a cut."""

    out: str
    """Path or URL of what was written."""
    kind: str
    """"stamps", "fits", "npz", or "view" where no pixel is written."""
    rows: int
    """Stamps written by this run, or seen by a view."""
    rows_skipped: int
    """Stamps that were there already."""
    size: int
    """Side in pixels."""
    tiles: int
    """Tiles that hold objects."""
    unplaced: int
    """Objects outside every tile, or without a usable position."""
    unplaced_at: str | None
    """Parquet table that lists them; None where there are none."""
    bytes: int
    """Decoded bytes of the pixels written by this run."""
    seconds: float
    """Wall time."""
    failed: tuple[tuple[str, str], ...] = ()
    """(tiles, reason) of what could not be read; the next run tries it again."""
    warnings: tuple[str, ...] = ()
    """Sentences about arrays that were left out and pixels that were brought to another unit."""

    @property
    def units_failed(self) -> int:
        """Number of failed groups of tiles."""
        return len(self.failed)
