"""Anything that bundles are checked against before they measure: a survey, stamps, or a tile in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey

if TYPE_CHECKING:
    from astroml_plugin.sources.tile import Tile


@dataclass(frozen=True)
class TileFacts:
    """A tile in memory as a source of a run: what bundles are checked against."""

    bands: tuple[str, ...]
    """Bands of its arrays."""
    halo: int
    """Pixels that it holds around those that it owns."""
    array_names: tuple[str, ...]
    """Arrays that it has: image, variance, mask, psf."""
    pixel_scale: float | None
    """Arcsec per pixel; None without a WCS."""
    zero_points: tuple[float | None, ...]
    """AB magnitude of one unit of each band; None where it is not known."""
    url: str = "the tile"
    """Stands for it in messages."""

    @property
    def pixel_scales(self) -> tuple[float, float] | None:
        """Smallest and largest arcsec per pixel."""
        return None if self.pixel_scale is None else (self.pixel_scale, self.pixel_scale)

    @classmethod
    def of(cls, tile: Tile) -> TileFacts:
        """The facts of a tile."""
        names = tuple(name for name in ("image", "variance", "mask", "psf") if getattr(tile, name) is not None)
        return cls(tile.bands, tile.halo, names, tile.pixel_scale, tile.zero_points)

    def __len__(self) -> int:
        """One: of tiles."""
        return 1


Source = Survey | Stamps | TileFacts
"""Anything that bundles are checked against."""
