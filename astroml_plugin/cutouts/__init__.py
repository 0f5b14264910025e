"""Cutouts in memory: put a tile on the device once, gather stamps there, hand them over in batches."""

from astroml_plugin.cutouts.centring import (
    REACH,
    Centring,
    LightCentre,
    Recut,
    light_centre,
    measured_tolerance,
    offset_counts,
    recentred,
)
from astroml_plugin.cutouts.crowding import CROWDED, crowded
from astroml_plugin.cutouts.device_tile import DeviceTile, Move, device_bits, is_complete, to_device
from astroml_plugin.cutouts.pictures import Picture, shown, sizes
from astroml_plugin.cutouts.psf import psf_fwhms
from astroml_plugin.cutouts.raw import RawStamps, raw_stamps
from astroml_plugin.cutouts.resampling import (
    around_resampled,
    merged,
    resampled,
    resampled_psf,
    resampled_side,
    source_side,
    steps_taken,
)
from astroml_plugin.cutouts.stamps import Cutouts, around, batches, crop, cut, from_stamps, reduce_bits
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
    "Picture",
    "RawStamps",
    "Recut",
    "around",
    "around_resampled",
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
    "merged",
    "offset_counts",
    "psf_fwhms",
    "raw_stamps",
    "recentred",
    "reduce_bits",
    "resampled",
    "resampled_psf",
    "resampled_side",
    "shown",
    "sizes",
    "source_side",
    "steps_taken",
    "to_device",
]
