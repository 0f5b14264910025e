"""A survey or stamps that are asked for a page: the tile table, and masks of a sample of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.flags import INFORMATIONAL
from astroml_plugin.core.typing import F64
from astroml_plugin.pixels import psf_fwhm
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

SAMPLE = 64
"""Tiles whose pixels are read."""

DRAWN = 4000
"""Tiles that are drawn at most."""


@dataclass
class SurveySubject:
    """A survey."""

    survey: Survey

    @cached_property
    def tiles(self) -> list[TileInfo]:
        """The tiles that are drawn: all, or evenly chosen ones of a large survey."""
        every = max(1, -(-self.count // DRAWN))
        return [info for place, info in enumerate(self.survey.iter_tiles()) if place % every == 0]

    @cached_property
    def index(self) -> pa.Table:
        """All tiles, without headers."""
        return self.survey.index_table()

    @property
    def count(self) -> int:
        """Number of tiles."""
        return int(self.index.num_rows)

    @cached_property
    def unusable(self) -> tuple[dict[str, F64], list[str]]:
        """Tile -> part of its own pixels that cannot be used (band,), of a sample; sentences on those that failed."""
        step = max(1, -(-len(self.tiles) // SAMPLE))
        found: dict[str, F64] = {}
        problems: list[str] = []
        for info in self.tiles[::step]:
            try:
                found[info.name] = _unusable(self.survey, info)
            except AstromlError as error:
                problems.append(f"{info.name}: {error}")
        return found, problems

    @cached_property
    def fwhm(self) -> dict[str, F64]:
        """Tile -> FWHM in pixels of the PSF in its middle in each band (band,), of a sample."""
        step = max(1, -(-len(self.tiles) // SAMPLE))
        found: dict[str, F64] = {}
        for info in self.tiles[::step]:
            if info.has_psf:
                try:
                    cells = self.survey.read_psf(info)
                except AstromlError:  # a damaged tile: its pixels say so in another section
                    continue
                middle = cells[:, cells.shape[1] // 2, cells.shape[2] // 2]
                found[info.name] = np.array([psf_fwhm(one) for one in middle], np.float64)
        return found


def _unusable(survey: Survey, info: TileInfo) -> F64:
    tile = survey.read_tile(info)
    own = info.inner
    part = (
        slice(None),
        slice(own.y0 - info.outer.y0, own.y1 - info.outer.y0),
        slice(own.x0 - info.outer.x0, own.x1 - info.outer.x0),
    )
    bad = ~np.isfinite(tile.image[part])
    if tile.mask is not None:
        bad |= (tile.mask[part] & np.uint32(~int(INFORMATIONAL) & 0xFFFFFFFF)) != 0
    if tile.variance is not None:
        bad |= ~(tile.variance[part] > 0)
    return np.asarray(bad.mean((1, 2)), np.float64)


def depth(noise: float, zero_point: float | None, aperture: float) -> float:
    """AB magnitude of 5 sigma in `aperture` pixels of independent noise; NaN where the zero point is not known."""
    if zero_point is None or not np.isfinite(zero_point) or not noise > 0:
        return float("nan")
    return float(zero_point - 2.5 * np.log10(5 * noise * np.sqrt(aperture)))
