"""Answers in the formats of others: which types each can hold, where nulls go, and where the rows come from."""

from astroml_plugin.catalog.export.columns import settled
from astroml_plugin.catalog.export.facts import with_provenance
from astroml_plugin.catalog.export.fits import write_fits
from astroml_plugin.catalog.export.votable import write_votable

__all__ = ["settled", "with_provenance", "write_fits", "write_votable"]
