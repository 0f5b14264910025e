"""Parts of astropy that are imported when something of them is first used.

Astropy takes 0.4 s to import. A run on stamps without positions needs nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astroml_plugin.core.lazily import later

if TYPE_CHECKING:
    import astropy
    import astropy_healpix as healpix
    from astropy import coordinates, time
    from astropy import table as astropy_table
    from astropy import units as u
    from astropy import wcs as fits_wcs
    from astropy.io import fits, votable
    from astropy.table import meta as table_meta
    from astropy.utils import exceptions
    from astropy.utils.xml import iterparser
    from astropy.wcs import utils as wcs_utils
else:
    astropy = later("astropy")
    healpix = later("astropy_healpix")
    astropy_table, coordinates = later("astropy.table"), later("astropy.coordinates")
    time = later("astropy.time")
    u = later("astropy.units")
    fits_wcs = later("astropy.wcs")
    fits, votable = later("astropy.io.fits"), later("astropy.io.votable")
    table_meta = later("astropy.table.meta")
    exceptions = later("astropy.utils.exceptions")
    iterparser = later("astropy.utils.xml.iterparser")
    wcs_utils = later("astropy.wcs.utils")

__all__ = [
    "astropy",
    "astropy_table",
    "coordinates",
    "exceptions",
    "fits",
    "fits_wcs",
    "healpix",
    "iterparser",
    "table_meta",
    "time",
    "u",
    "votable",
    "wcs_utils",
]
