"""Units of FITS headers as astropy reads them."""

from __future__ import annotations

from functools import lru_cache

from astropy import units as u

from astroml_plugin.sky.wcs import astropy_quiet


@lru_cache(maxsize=1024)
def unit_of(text: str) -> u.UnitBase | None:
    """Unit of a BUNIT, in the spelling of FITS or astropy; None where neither reads it, and for logarithms."""
    if not text.strip():
        return None
    with astropy_quiet():
        for form in ("fits", None):
            try:
                unit = u.Unit(text.strip(), format=form)
            except (ValueError, TypeError, ArithmeticError):
                continue
            return unit if isinstance(unit, u.UnitBase) else None
    return None
