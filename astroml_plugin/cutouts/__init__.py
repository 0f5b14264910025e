"""Cutouts in memory: put a tile on the device once, gather stamps there, hand them over in batches."""

from astroml_plugin.cutouts.centring import (
    CROWDED,
    REACH,
    Centring,
    LightCentre,
    Recut,
    crowded,
    light_centre,
    measured_tolerance,
    offset_counts,
    recentred,
)
from astroml_plugin.cutouts.pixels import (
    DeviceTile,
    Move,
    SparseTile,
    Tile,
    band_index,
    device_bits,
    is_complete,
    pixel_bits,
    to_device,
)
from astroml_plugin.cutouts.stamps import Cutouts, around, batches, crop, cut, from_stamps, reduce_bits, stamp_origin
from astroml_plugin.cutouts.windows import Grid, grid

__all__ = [
    "CROWDED",
    "REACH",
    "Centring",
    "Cutouts",
    "DeviceTile",
    "Grid",
    "LightCentre",
    "Move",
    "Recut",
    "SparseTile",
    "Tile",
    "around",
    "band_index",
    "batches",
    "crop",
    "crowded",
    "cut",
    "device_bits",
    "from_stamps",
    "grid",
    "is_complete",
    "light_centre",
    "measured_tolerance",
    "offset_counts",
    "pixel_bits",
    "recentred",
    "reduce_bits",
    "stamp_origin",
    "to_device",
]
