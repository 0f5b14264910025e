"""Cutouts in memory: put a tile on the device once, gather stamps there, hand them over in batches."""

from astroml_plugin.cutouts.pixels import (
    DeviceTile,
    Move,
    SparseTile,
    Tile,
    band_index,
    device_bits,
    pixel_bits,
    to_device,
)
from astroml_plugin.cutouts.stamps import Cutouts, around, batches, crop, cut, from_stamps, reduce_bits, stamp_origin
from astroml_plugin.cutouts.windows import Grid, grid

__all__ = [
    "Cutouts",
    "DeviceTile",
    "Grid",
    "Move",
    "SparseTile",
    "Tile",
    "around",
    "band_index",
    "batches",
    "crop",
    "cut",
    "device_bits",
    "from_stamps",
    "grid",
    "pixel_bits",
    "reduce_bits",
    "stamp_origin",
    "to_device",
]
