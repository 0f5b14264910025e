"""Numbers about the pixels of stamps, by band: what a network's input looks like, in units that surveys share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.cutouts import Cutouts, crop, psf_fwhms
from astroml_plugin.evaluation.drift import Tolerance
from astroml_plugin.pixels import NANOJANSKY

SIDE = 48
"""Pixels of the side of the stamps that are looked at; smaller ones as they are."""

_BORDER = 4
_WIDE, _NARROW = 5.0, 2.5
"""Radii of the apertures, pixels."""
_SEEN = 10.0
"""Signal-to-noise ratio from which the light of an object tells a ratio."""
_MAGNITUDE = 2.5


_OF_OBJECTS = ("flux", "signal", "concentration")
"""Numbers that need an object in the middle."""


class Number(NamedTuple):
    """Name, band and unit of a number about pixels."""

    what: str
    """noise, level, flux, signal, concentration, usable, PSF FWHM, colour or pixel scale."""
    band: str
    """Band, two of them of a colour; empty where it is of all."""
    unit: str
    """Empty where there is none."""

    def __str__(self) -> str:
        name = f"{self.what} {self.band}" if self.band else self.what
        return f"{name} [{self.unit}]" if self.unit else name


TOLERANCES = {
    "noise": Tolerance(0.2),
    "level": Tolerance(absolute=0.1),
    "flux": Tolerance(0.1),
    "signal": Tolerance(0.2),
    "concentration": Tolerance(0.1),
    "usable": Tolerance(0.1),
    "PSF FWHM": Tolerance(0.1),
    "colour": Tolerance(absolute=0.1),
    "pixel scale": Tolerance(0.02),
}
"""Differences that are no drift: a tenth of the value, of the noise, or of a magnitude; a fifth of the noise itself
and of what is divided by it; 2 % of the pixel scale."""

MEANINGS = {
    "noise": "scatter of the pixels at the stamp's border",
    "level": "median of the border, in units of the noise",
    "flux": f"light within {_WIDE:g} pixels of the object's place, above the border",
    "concentration": f"part of it within {_NARROW:g} pixels",
    "usable": "part of the pixels that can be used",
    "PSF FWHM": "width of the PSF that is stored",
    "colour": "difference in magnitudes of the light in two bands",
    "pixel scale": "side of a pixel",
}


def input_numbers(stamps: Cutouts, *, centred: bool = True) -> dict[Number, F64]:
    """Numbers (n,) about n stamps, NaN where one cannot be told.

    Args:
        stamps: as they are stored; pixels with a zero point are brought to nJy.
        centred: whether an object lies in the middle; else its light is left away.
    """
    some = crop(stamps, min(SIDE, *stamps.image.shape[-2:]))
    image = np.asarray(some.image.cpu().numpy(), np.float64)
    usable = some.valid.cpu().numpy()
    found: dict[Number, F64] = {}
    light: dict[str, F64] = {}
    for place, band in enumerate(some.bands):
        factor, unit = _unit(some, place)
        for number, values, signal in _of_band(image[:, place] * factor[:, None, None], usable[:, place], band, unit):
            if centred or number.what not in _OF_OBJECTS:
                found[number] = values
            if number.what == "flux":
                light[band] = np.where(signal > _SEEN / 2, values, np.nan)
        if some.psf is not None:
            psf = np.asarray(psf_fwhms(some.psf[:, place].contiguous().to(torch.float32)).cpu(), np.float64)
            found[Number("PSF FWHM", band, "pix")] = psf
    if centred:
        for first, second in pairwise(sorted(some.bands)):  # in whatever order they are stored
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = -_MAGNITUDE * np.log10(light[first] / light[second])
            found[Number("colour", f"{first} - {second}", "mag")] = ratio
    if some.scales is not None:
        found[Number("pixel scale", "", "arcsec")] = some.scales.numpy()
    return found


def _unit(stamps: Cutouts, place: int) -> tuple[F64, str]:
    """Factors (n,) to nJy and its name; 1 and "stored" where a zero point is missing."""
    zero = np.full(len(stamps), np.nan) if stamps.zero_points is None else stamps.zero_points[:, place].numpy()
    if not np.isfinite(zero).all():
        return np.ones(len(stamps)), "stored"
    return np.asarray(10 ** (0.4 * (NANOJANSKY - zero)), np.float64), "nJy"


def _of_band(image: F64, usable: Bool, band: str, unit: str) -> Iterator[tuple[Number, F64, F64]]:
    """Numbers of one band, and the signal-to-noise ratio of each object."""
    side_y, side_x = image.shape[-2:]
    edge = np.ones((side_y, side_x), bool)
    edge[_BORDER : side_y - _BORDER, _BORDER : side_x - _BORDER] = False
    border = np.where(usable, image, np.nan)[:, edge]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # stamps without any usable border
        sky = np.nanmedian(border, 1)
        noise = 1.4826 * np.nanmedian(np.abs(border - sky[:, None]), 1)
    y, x = np.ogrid[:side_y, :side_x]
    radius = np.hypot(y - side_y // 2, x - side_x // 2)
    clean = np.where(usable, image - sky[:, None, None], np.nan)
    wide, narrow = (clean[:, radius <= reach].sum(1) for reach in (_WIDE, _NARROW))
    with np.errstate(invalid="ignore", divide="ignore"):
        signal = wide / (noise * np.sqrt((radius <= _WIDE).sum()))
        ratio = np.where(signal > _SEEN, narrow / wide, np.nan)
        level = np.where(noise > 0, sky / noise, np.nan)
    yield Number("noise", band, unit), noise, signal
    yield Number("level", band, "noise"), level, signal
    yield Number("flux", band, unit), wide, signal
    with np.errstate(invalid="ignore", divide="ignore"):
        yield Number("signal", band, "noise"), np.where(noise > 0, wide / noise, np.nan), signal
    yield Number("concentration", band, ""), ratio, signal
    yield Number("usable", band, ""), usable.mean((1, 2)), signal
