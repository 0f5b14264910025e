"""Units of FITS headers as astropy reads them."""

from __future__ import annotations

from astropy import units as u

from astroml_plugin.sky.wcs import astropy_quiet


def unit_of(text: str) -> u.UnitBase | None:
    """Unit of a BUNIT, in the FITS standard's spelling or astropy's own; None where neither reads it."""
    if not text.strip():
        return None
    with astropy_quiet():
        for form in ("fits", None):
            try:
                return u.Unit(text.strip(), format=form)
            except (ValueError, TypeError):
                continue
    return None
