"""Measurements of a band of an image before its tiles are written: its sky."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from astroml_plugin.core.typing import Bool
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.band_pixels import planes_of, read_with_sky
from astroml_plugin.sources.ingest.bands import BandPlan
from astroml_plugin.sources.ingest.opening import open_fits
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.plans import ImagePlan
from astroml_plugin.sources.ingest.sky import OFF, Sky, mesh_side, sky_of
from astroml_plugin.sources.ingest.sky_cells import measure


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


def band_tasks(plans: Sequence[ImagePlan], options: FitsOptions) -> list[BandTask]:
    """The bands that are to be measured; none where nothing is asked for."""
    if options.background == OFF:
        return []
    return [
        BandTask(band, plan.shape, (place, number), options)
        for place, plan in enumerate(plans)
        for number, band in enumerate(plan.bands)
        if band.image is not None
    ]


def measure_band(task: BandTask) -> Sky:
    """The sky that is to be taken off a band.

    Raises:
        CorruptError: pixels cannot be decoded.
        InputError: a file is gone.
    """
    with contextlib.ExitStack() as stack:
        urls = sorted({plane.url for plane in planes_of(task.band)})
        files = {url: stack.enter_context(open_fits(url, scan=False)) for url in urls}

        def read(box: Box) -> tuple[np.ndarray, Bool]:
            return read_with_sky(task.band, box, files)

        cells = measure(read, task.shape, mesh_side(task.options.background_mesh, task.shape))
    return sky_of(cells, task.options.background)


def with_skies(plans: Sequence[ImagePlan], skies: Mapping[tuple[int, int], Sky]) -> list[ImagePlan]:
    """The plans with the skies of their bands, by `BandTask.place`."""
    return [
        replace(
            plan,
            bands=tuple(
                replace(band, sky=skies.get((place, number), band.sky)) for number, band in enumerate(plan.bands)
            ),
        )
        for place, plan in enumerate(plans)
    ]
