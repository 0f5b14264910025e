"""Measurements of a band of an image before its tiles are written: its sky, and its PSF where that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Bool
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.band_pixels import planes_of, read_usable, read_with_sky
from astroml_plugin.sources.ingest.bands import BandPlan
from astroml_plugin.sources.ingest.opening import open_fits
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.plans import ImagePlan
from astroml_plugin.sources.ingest.sky import AUTO, OFF, Sky, mesh_side, sky_at_zero, sky_of
from astroml_plugin.sources.ingest.sky_cells import Read, look, measure
from astroml_plugin.sources.star_psf.measuring import StarPsf, measure_psf


@dataclass(frozen=True)
class BandTask:
    """One band of one image, to be measured by one worker."""

    band: BandPlan
    """Where its pixels are."""
    shape: tuple[int, int]
    """(height, width) of the image."""
    place: tuple[int, int]
    """Place of the image among those measured together, and of the band in it."""
    options: FitsOptions


@dataclass(frozen=True)
class Measured:
    """Sky and PSF of one band of one image, as measured."""

    sky: Sky
    stars: StarPsf | None = None
    """PSF from its stars."""
    refused: str = ""
    """Why there is none."""


def band_tasks(plans: Sequence[ImagePlan], options: FitsOptions) -> list[BandTask]:
    """The bands that are to be measured; none where nothing is asked for."""
    if options.background == OFF and not options.psf_from_stars:
        return []
    return [
        BandTask(band, plan.shape, (place, number), options)
        for place, plan in enumerate(plans)
        for number, band in enumerate(plan.bands)
        if band.image is not None and (options.background != OFF or band.psf is None)
    ]


def measure_band(task: BandTask) -> Measured:
    """The sky that is to be taken off a band, and its PSF from stars where that is asked for.

    Raises:
        CorruptError: pixels cannot be decoded.
        InputError: a file is gone.
    """
    with contextlib.ExitStack() as stack:
        urls = sorted({plane.url for plane in planes_of(task.band)})
        files = {url: stack.enter_context(open_fits(url, scan=False)) for url in urls}

        def read(box: Box) -> tuple[np.ndarray, Bool]:
            return read_with_sky(task.band, box, files)

        sky = task.band.sky
        if task.options.background != OFF:
            sky = measured_sky(read, task.shape, task.options.background, task.options.background_mesh)
        if not task.options.psf_from_stars or task.band.psf is not None:
            return Measured(sky)
        flat = replace(task.band, sky=sky)
        try:
            return Measured(sky, measure_psf(lambda box: read_usable(flat, box, files), task.shape))
        except InputError as error:
            return Measured(sky, refused=str(error))


def measured_sky(read: Read, shape: tuple[int, int], choice: str, mesh: int | None) -> Sky:
    """The sky that is to be taken off an image of a shape (height, width).

    Args:
        read: its pixels.
        shape: in pixels.
        choice: see `sky_of`. With "auto", some rows of a large image tell a sky that is clearly at zero.
        mesh: side of the cells in pixels; None: the default.
    """
    side = mesh_side(mesh, shape)
    some = look(read, shape, side) if choice == AUTO else None
    at_zero = sky_at_zero(some) if some is not None else None
    return at_zero or sky_of(measure(read, shape, side), choice)


def with_measured(plans: Sequence[ImagePlan], found: Mapping[tuple[int, int], Measured]) -> list[ImagePlan]:
    """The plans with what was measured of their bands, by `BandTask.place`."""
    return [
        replace(
            plan,
            bands=tuple(_with(band, found.get((place, number))) for number, band in enumerate(plan.bands)),
        )
        for place, plan in enumerate(plans)
    ]


def _with(band: BandPlan, measured: Measured | None) -> BandPlan:
    if measured is None:
        return band
    return replace(band, sky=measured.sky, stars=measured.stars, refused=measured.refused)
