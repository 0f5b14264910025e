"""A catalog as a HATS collection, which LSDB opens; the library hats-import writes it from the rows given here."""

from astroml_plugin.catalog.hats.collection import HatsCollection, HatsOptions, write_hats
from astroml_plugin.catalog.hats.extension import Joined, Primary

__all__ = ["HatsCollection", "HatsOptions", "Joined", "Primary", "write_hats"]
