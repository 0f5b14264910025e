"""The PSF of one band of one image from its stars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.sources.star_psf.choosing import choose_stars
from astroml_plugin.sources.star_psf.cutting_out import cut_out
from astroml_plugin.sources.star_psf.finding import Read, find_objects
from astroml_plugin.sources.star_psf.fitting import MARGIN, Fit, PsfField, Stars, fit_psf
from astroml_plugin.sources.star_psf.judging import left_out, mean_offset, quality_of
from astroml_plugin.sources.star_psf.quality import Quality

LEAST = 5
"""Stars without which there is no PSF."""

_SIDE = 12.0
"""FWHMs along the side of the PSF."""
_SMALLEST, LARGEST = 25, 49
"""Sides in pixels."""

_ORDERS = ((250, (3,)), (120, (2,)), (30, (2, 1)), (12, (1, 0)))
"""Stars from which the PSF varies as a polynomial of an order; of two, the one that foretells stars left out better."""


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
    orders = next((orders for count, orders in _ORDERS if len(stars) >= count), (0,))
    with threadpool_limits(1, user_api="blas"):
        judged = [_judged(stars, choice.fwhm, order) for order in orders]
    fit, off = min(judged, key=lambda pair: mean_offset(pair[1]))
    if fit.kept.sum() < LEAST:
        raise _too_few(int(fit.kept.sum()), rejected)
    return StarPsf(fit.psf, quality_of(stars, fit, off, shape, rejected))


def _judged(stars: Stars, fwhm: float, order: int) -> tuple[Fit, F64]:
    fit = fit_psf(stars, fwhm, order)
    return fit, left_out(stars, fit, fwhm)


def _too_few(count: int, rejected: dict[str, int]) -> InputError:
    others = ", ".join(f"{number} {why}" for why, number in rejected.items() if number)
    return InputError(
        f"{count} stars are too few for a PSF ({LEAST} are the least{f'; left out: {others}' if others else ''}): "
        "leave out --psf-from-stars, or give --psf FILE"
    )
