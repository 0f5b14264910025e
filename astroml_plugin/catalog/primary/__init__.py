"""Which row of a source counts where images overlap: decided when a run ends, kept beside the parts."""

from astroml_plugin.catalog.primary.deciding import clean, decide, rule_of, told
from astroml_plugin.catalog.primary.state import FOLDER, GIVEN, INDEX, MATCHED, UNDECIDED, State, begin, read

__all__ = [
    "FOLDER",
    "GIVEN",
    "INDEX",
    "MATCHED",
    "UNDECIDED",
    "State",
    "begin",
    "clean",
    "decide",
    "read",
    "rule_of",
    "told",
]
