"""The PSF of one band of one image from its stars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.sources.star_psf.choosing import choose_stars
from astroml_plugin.sources.star_psf.cutting_out import cut_out
from astroml_plugin.sources.star_psf.finding import Read, find_objects
from astroml_plugin.sources.star_psf.fitting import MARGIN, PsfField, fit_psf
from astroml_plugin.sources.star_psf.judging import judge
from astroml_plugin.sources.star_psf.quality import Quality

LEAST = 5
"""Stars without which there is no PSF."""

_SIDE = 8.0
"""FWHMs along the side of the PSF."""
_SMALLEST, LARGEST = 25, 49
"""Sides in pixels."""

_ORDERS = ((250, 3), (30, 2), (12, 1))
"""Stars from which the PSF varies as a polynomial of an order."""


@dataclass(frozen=True, eq=False)
class StarPsf:
    """A PSF from stars, and how good it is."""

    psf: PsfField
    quality: Quality

    def at(self, x: F64, y: F64) -> F64:
        """(n, s, s) PSF of unit sum at n places."""
        return self.psf.at(x, y)


def measure_psf(read: Read, shape: tuple[int, int]) -> StarPsf:
    """Find the stars of an image and fit its PSF to them.

    Args:
        read: pixels of the image, without its sky.
        shape: (height, width) of the image.

    Raises:
        InputError: there are fewer than `LEAST` stars.
    """
    objects = find_objects(read, shape)
    choice = choose_stars(objects, shape)
    if len(choice.stars) < LEAST:
        raise _too_few(len(choice.stars), choice.rejected)
    size = int(np.clip(2 * round(_SIDE * choice.fwhm / 2) + 1, _SMALLEST, LARGEST))
    stars = cut_out(read, shape, objects, choice.stars, size + 2 * MARGIN, choice.fwhm)
    rejected = {**choice.rejected, "without enough sky": len(choice.stars) - len(stars)}
    if len(stars) < LEAST:
        raise _too_few(len(stars), rejected)
    order = next((order for count, order in _ORDERS if len(stars) >= count), 0)
    fit = fit_psf(stars, choice.fwhm, order)
    if fit.kept.sum() < LEAST:
        raise _too_few(int(fit.kept.sum()), rejected)
    return StarPsf(fit.psf, judge(stars, fit, choice.fwhm, shape, rejected))


def _too_few(count: int, rejected: dict[str, int]) -> InputError:
    others = ", ".join(f"{number} {why}" for why, number in rejected.items() if number)
    return InputError(
        f"{count} stars are too few for a PSF ({LEAST} are the least{f'; left out: {others}' if others else ''}): "
        "leave out --psf-from-stars, or give --psf FILE"
    )
