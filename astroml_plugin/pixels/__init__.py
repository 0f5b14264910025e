"""Pixels as they were read, in NumPy: a tile, its faults and zero points, the width of its PSF, moments of light."""

from astroml_plugin.pixels.faults import BAD, is_usable, pixel_bits
from astroml_plugin.pixels.psf_width import psf_fwhm
from astroml_plugin.pixels.tile import SparseTile, Tile, band_index, stamp_origin, whole_tile
from astroml_plugin.pixels.zero_points import NANOJANSKY, plausible, plausible_for, refuse_implausible

__all__ = [
    "BAD",
    "NANOJANSKY",
    "SparseTile",
    "Tile",
    "band_index",
    "is_usable",
    "pixel_bits",
    "plausible",
    "plausible_for",
    "psf_fwhm",
    "refuse_implausible",
    "stamp_origin",
    "whole_tile",
]
