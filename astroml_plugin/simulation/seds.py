"""Spectra of galaxies seen through bands at a redshift: a few ingredients with the features that redshifts are told by.

Old stars: a cool black body with the 4000 Å break. Young stars: a power law in the ultraviolet with a Balmer break, and
emission lines. Dust reddens the young ones. Fluxes are photon-weighted, in the AB system. These are toys of spectra:
good to see that a method finds redshifts from breaks and lines, not a library to measure real galaxies with.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64

BANDS: dict[str, tuple[float, float]] = {
    "u": (320.5, 393.5),
    "g": (401.5, 551.9),
    "r": (552.0, 691.0),
    "i": (691.0, 818.0),
    "z": (818.0, 923.5),
    "y": (923.8, 1084.5),
}
"""Edges of LSST's filters in nm, taken as flat between them (Ivezic et al. 2019, ApJ 873, 111)."""

_REST = np.arange(120.0, 1100.0, 0.5)
"""nm"""
_BREAK, _BREAK_DEPTH = 400.0, 1.9
"""nm, and flux above over below, as of early types (Balogh et al. 1999; Kauffmann et al. 2003)."""
_BALMER, _BALMER_DEPTH = 364.6, 1.3
_SLOPE = -2.0
"""F_lambda as a power of the wavelength in the ultraviolet of unreddened young stars (Calzetti et al. 1994)."""
_OLD_KELVIN = 4800.0
_LINES = {372.7: 35.0, 486.1: 12.0, 495.9: 8.0, 500.7: 24.0, 656.3: 60.0}
"""nm -> equivalent width in Å of [O II], H beta, [O III] twice and H alpha for young stars alone; integrated spectra of
spirals have some tenths of these (Kennicutt 1992)."""

_DARK, _HUBBLE, _LIGHT = 0.7, 70.0, 299792.458
"""Flat universe: dark energy, km/s/Mpc, km/s."""


def _black_body(wavelength: F64, kelvin: float) -> F64:
    """Shape of F_lambda."""
    return np.asarray(wavelength**-5 / np.expm1(1.438777e7 / (wavelength * kelvin)))


def reddening(wavelength: F64) -> F64:
    """k(lambda) of starbursts, wavelengths in nm (Calzetti et al. 2000, ApJ 533, 682)."""
    x = wavelength / 1000
    long = 2.659 * (-1.857 + 1.040 / x) + 4.05
    short = 2.659 * (-2.156 + 1.509 / x - 0.198 / x**2 + 0.011 / x**3) + 4.05
    return np.asarray(np.where(x > 0.63, long, short))


@lru_cache(maxsize=1)
def _ingredients() -> tuple[F64, F64]:
    """F_lambda of old and of young stars (without dust), each 1 on average from 500 to 600 nm at rest."""
    step = 1 / (1 + np.exp(-(_REST - _BREAK) / 3.0))
    old = _black_body(_REST, _OLD_KELVIN) * (1 / _BREAK_DEPTH + (1 - 1 / _BREAK_DEPTH) * step)
    balmer = 1 / (1 + np.exp(-(_REST - _BALMER) / 2.0))
    young = (_REST / 500) ** _SLOPE * (1 / _BALMER_DEPTH + (1 - 1 / _BALMER_DEPTH) * balmer)
    for place, width in _LINES.items():
        level = young[np.argmin(np.abs(_REST - place))]
        young = young + level * (width / 10) / (np.sqrt(2 * np.pi) * 0.8) * np.exp(-(((_REST - place) / 0.8) ** 2) / 2)
    middle = (_REST > 500) & (_REST < 600)
    return old / old[middle].mean(), young / young[middle].mean()


@lru_cache(maxsize=8)
def _tables(bands: tuple[str, ...], highest: float) -> tuple[F64, F64, F64, F64]:
    """Redshifts (k,), reddenings (m,), and F_nu of old (band, k) and young (band, k, m) stars in each band."""
    if unknown := [band for band in bands if band not in BANDS]:
        raise InputError(f"spectra are known through {', '.join(BANDS)}, not through {', '.join(unknown)}")
    redshifts, dust = np.linspace(0, highest, 301), np.linspace(0, 0.6, 13)
    old, young = _ingredients()
    dimmed = 10 ** (-0.4 * dust[:, None] * (reddening(_REST) - reddening(np.array([550.0]))))
    first = np.empty((len(bands), len(redshifts)))
    second = np.empty((len(bands), len(redshifts), len(dust)))
    for number, band in enumerate(bands):
        low, high = BANDS[band]
        for place, redshift in enumerate(redshifts):
            inside = (_REST * (1 + redshift) >= low) & (_REST * (1 + redshift) < high)
            seen = _REST[inside] * (1 + redshift)
            scale = (1 + redshift) ** -1 * np.gradient(seen)
            pivot = (np.gradient(seen) / seen).sum()
            first[number, place] = (old[inside] * seen * scale).sum() / pivot
            second[number, place] = (young[inside] * dimmed[:, inside] * seen * scale).sum(1) / pivot
    return redshifts, dust, first, second


def fluxes(bands: tuple[str, ...], redshift: F64, young: F64, dust: F64, highest: float) -> F64:
    """(n, band) F_nu of galaxies of equal light between 500 and 600 nm at rest; only ratios mean something.

    Args:
        bands: names in `BANDS`.
        redshift: (n,) from 0 to `highest`.
        young: (n,) share of young stars in that light, as seen.
        dust: (n,) E(B - V) of the young stars, 0 to 0.6.
        highest: end of the table of redshifts.
    """
    steps, reds, first, second = _tables(bands, highest)
    place = np.clip(redshift / steps[1], 0, len(steps) - 1.001)
    low, part = place.astype(int), place % 1
    step = np.clip(dust / reds[1], 0, len(reds) - 1.001)
    red, share = step.astype(int), step % 1
    old = first[:, low] * (1 - part) + first[:, low + 1] * part
    near = second[:, low, red] * (1 - share) + second[:, low, red + 1] * share
    far = second[:, low + 1, red] * (1 - share) + second[:, low + 1, red + 1] * share
    found = (1 - young) * old + young * (near * (1 - part) + far * part)
    return np.asarray(found.T)


@lru_cache(maxsize=4)
def distances(highest: float) -> tuple[F64, F64]:
    """Redshifts and comoving distances in Mpc of a flat universe with 0.3 of matter and 70 km/s/Mpc."""
    redshifts = np.linspace(0, highest, 2001)
    rate = 1 / np.sqrt((1 - _DARK) * (1 + redshifts) ** 3 + _DARK)
    steps = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(redshifts))])
    return redshifts, steps * _LIGHT / _HUBBLE
