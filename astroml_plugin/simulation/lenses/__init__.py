"""Strong lenses and what is mistaken for them: g, r, i stamps of LSST's ten-year depth (extra `sim`)."""

from astroml_plugin.simulation.lenses.bodies import HARD, PAINTERS
from astroml_plugin.simulation.lenses.separability import EASY_FEATURES, easy_features
from astroml_plugin.simulation.lenses.stamps import LensCamera, LensSet

__all__ = ["EASY_FEATURES", "HARD", "PAINTERS", "LensCamera", "LensSet", "easy_features"]
