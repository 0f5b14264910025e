"""Which row of a source counts where images overlap: decided when a run ends, kept beside the parts."""

from astroml_plugin.catalog.primary.deciding import clean, decide, rule_of, told
from astroml_plugin.catalog.primary.lacking import is_blank, lacking
from astroml_plugin.catalog.primary.matching import Given, shown
from astroml_plugin.catalog.primary.state import FOLDER, GIVEN, INDEX, MATCHED, UNDECIDED, State, begin, read

__all__ = [
    "FOLDER",
    "GIVEN",
    "INDEX",
    "MATCHED",
    "UNDECIDED",
    "Given",
    "State",
    "begin",
    "clean",
    "decide",
    "is_blank",
    "lacking",
    "read",
    "rule_of",
    "shown",
    "told",
]
