"""Answers in the formats of others: which types each can hold, where nulls go, and where the rows come from.

The names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astroml_plugin.core.lazily import names_of

if TYPE_CHECKING:
    from astroml_plugin.catalog.export.columns import settled
    from astroml_plugin.catalog.export.facts import with_provenance
    from astroml_plugin.catalog.export.fits import write_fits
    from astroml_plugin.catalog.export.votable import write_votable

__all__ = ["settled", "with_provenance", "write_fits", "write_votable"]

_HOMES = {"columns": "settled", "facts": "with_provenance", "fits": "write_fits", "votable": "write_votable"}

__getattr__, __dir__ = names_of(__name__, _HOMES)
