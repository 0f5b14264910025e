"""World coordinates, boxes, duplicates on the sky."""

from astroml_plugin.sky.wcs import Box, TileGeometry, Wcs, separation

__all__ = ["Box", "TileGeometry", "Wcs", "separation"]
