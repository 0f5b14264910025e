"""How good a PSF from stars is: numbers and sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

POOR_STARS, POOR_WIDTH, POOR_SHAPE = 20, 0.01, 0.01
"""A PSF is poor below this number of stars, or where their FWHM (relative) or shape is off by more on average."""

POOR_SCATTER = 0.06
"""Nor may single stars scatter by more than this in FWHM or shape."""

_STANDS_OUT = 3.0
"""Standard errors by which an offset must differ from 0 to count."""


@dataclass(frozen=True)
class Zone:
    """A part of the image, with its PSF and what its stars say of it when they are left out."""

    x0: int
    y0: int
    x1: int
    y1: int
    stars: int
    """Stars in it that the fit uses."""
    fwhm: float
    """FWHM in pixels of the PSF in its middle."""
    e1: float
    e2: float
    """Shape (a - b) / (a + b) there."""
    fwhm_off: float
    """Mean of (FWHM of a star - foretold) / foretold; NaN where nobody knows."""
    fwhm_scatter: float
    """Scatter of that from star to star, with the noise of the stars."""
    e1_off: float
    e2_off: float
    e_scatter: float
    """Scatter of e1 and e2 from star to star."""


@dataclass(frozen=True)
class Quality:
    """Numbers about a PSF from stars."""

    stars: int
    """Stars that the fit uses."""
    rejected: dict[str, int]
    """Why other objects of enough light are not used -> how many."""
    order: int
    """Order of the polynomial in the place."""
    whole: Zone
    """The image as one zone."""
    zones: tuple[Zone, ...]

    @property
    def doubt(self) -> str:
        """Why it may be poor; "" where nothing tells so."""
        whole, told = self.whole, []
        count = max(self.stars, 1)
        if self.stars < POOR_STARS:
            told.append(f"only {self.stars} stars")
        standard = _STANDS_OUT * whole.fwhm_scatter / count**0.5
        if abs(whole.fwhm_off) > max(POOR_WIDTH, standard):
            side = "wider" if whole.fwhm_off > 0 else "narrower"
            told.append(f"stars left out are {100 * abs(whole.fwhm_off):.1f} % {side}")
        off, standard = float(np.hypot(whole.e1_off, whole.e2_off)), _STANDS_OUT * whole.e_scatter / count**0.5
        if off > max(POOR_SHAPE, standard):
            told.append(f"shapes of stars left out differ by {off:.3f}")
        if max(whole.fwhm_scatter, whole.e_scatter) > POOR_SCATTER:
            told.append(
                f"stars left out scatter by {100 * whole.fwhm_scatter:.1f} % in FWHM and {whole.e_scatter:.3f} in shape"
            )
        if whole.fwhm < _UNSAMPLED:
            told.append(f"its FWHM of {whole.fwhm:.2f} pixels is not sampled")
        return " and ".join(told)

    def rows(self) -> list[dict[str, float]]:
        """The zones, the whole image first."""
        return [asdict(zone) for zone in (self.whole, *self.zones)]


_UNSAMPLED = 2.0
