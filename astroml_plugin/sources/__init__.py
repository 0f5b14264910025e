"""Sources that are read unit by unit: surveys and stamps on disk."""

from astroml_plugin.sources.stamps import StampLayout, Stamps, open_source
from astroml_plugin.sources.survey import Survey, SurveyLayout
from astroml_plugin.sources.tile_table import TileInfo

__all__ = ["StampLayout", "Stamps", "Survey", "SurveyLayout", "TileInfo", "open_source"]
