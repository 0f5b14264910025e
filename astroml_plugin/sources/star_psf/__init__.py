"""The PSF of an image from its own stars: found, chosen, fitted, and judged by stars that were left out."""

from astroml_plugin.sources.star_psf.quality import Quality, Zone

__all__ = ["Quality", "Zone"]
