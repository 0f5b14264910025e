"""A small seedable universe: skies whose tilings agree bit for bit, and postage stamps with truth (extra `sim`)."""

from astroml_plugin.simulation.fits_files import write_fits
from astroml_plugin.simulation.population import CLASSES, Camera, Population
from astroml_plugin.simulation.postage import StampSet, make_block
from astroml_plugin.simulation.skies import Sky

__all__ = ["CLASSES", "Camera", "Population", "Sky", "StampSet", "make_block", "write_fits"]
