"""Stamps cut from a survey around objects, as Stamps, FITS files or one archive."""

from astroml_plugin.cutting.options import CutoutOptions, CutoutsResult, Progress
from astroml_plugin.cutting.run import ObjectsToCut, cut

__all__ = ["CutoutOptions", "CutoutsResult", "ObjectsToCut", "Progress", "cut"]
