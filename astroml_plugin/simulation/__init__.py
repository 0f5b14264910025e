"""A small seedable universe: skies whose tilings agree bit for bit, and postage stamps with truth (extra `sim`)."""

from astroml_plugin.simulation.anomalies import AnomalySet
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.designs import PsfPairs, ShearSets, Single
from astroml_plugin.simulation.detections import DetectionSet
from astroml_plugin.simulation.fields import FieldSet
from astroml_plugin.simulation.fits_files import write_fits
from astroml_plugin.simulation.found import kinds_of, labelled_detections
from astroml_plugin.simulation.kinds import Composite, Irregular, RealGalaxies
from astroml_plugin.simulation.lenses import LensSet
from astroml_plugin.simulation.light import LightSet
from astroml_plugin.simulation.objects import CLASSES
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.presets import PRESETS, make_design, preset
from astroml_plugin.simulation.skies import Sky

__all__ = [
    "CLASSES",
    "PRESETS",
    "AnomalySet",
    "Camera",
    "Composite",
    "DetectionSet",
    "FieldSet",
    "Irregular",
    "LensSet",
    "LightSet",
    "Population",
    "PsfPairs",
    "RealGalaxies",
    "ShearSets",
    "Single",
    "Sky",
    "StampSet",
    "kinds_of",
    "labelled_detections",
    "make_design",
    "preset",
    "write_fits",
]
