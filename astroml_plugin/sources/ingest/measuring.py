"""Measurements of a band of an image before its tiles are written: its sky."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from astroml_plugin.core.typing import Bool
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.band_pixels import planes_of, read_with_sky
from astroml_plugin.sources.ingest.bands import BandPlan
from astroml_plugin.sources.ingest.opening import open_fits
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.plans import ImagePlan
from astroml_plugin.sources.ingest.sky import OFF, mesh_side, sky_of
from astroml_plugin.sources.ingest.sky_cells import measure


@dataclass(frozen=True)
class BandTask:
    """One band of one image, to be measured by one worker."""

    plan: ImagePlan
    number: int
    """Place of the band."""
    place: int
    """Place of the image among those measured together."""
    options: FitsOptions


def band_tasks(plans: Sequence[ImagePlan], options: FitsOptions) -> list[BandTask]:
    """The bands that are to be measured; none where nothing is asked for."""
    if options.background == OFF:
        return []
    return [
        BandTask(plan, number, place, options)
        for place, plan in enumerate(plans)
        for number, band in enumerate(plan.bands)
        if band.image is not None
    ]


def measure_band(task: BandTask) -> BandPlan:
    """The band's plan with its sky.

    Raises:
        CorruptError: pixels cannot be decoded.
        InputError: a file is gone.
    """
    band, options = task.plan.bands[task.number], task.options
    with contextlib.ExitStack() as stack:
        urls = sorted({plane.url for plane in planes_of(band)})
        files = {url: stack.enter_context(open_fits(url, scan=False)) for url in urls}

        def read(box: Box) -> tuple[np.ndarray, Bool]:
            return read_with_sky(band, box, files)

        cells = measure(read, task.plan.shape, mesh_side(options.background_mesh, task.plan.shape))
    return replace(band, sky=sky_of(cells, options.background))


def with_bands(plans: Sequence[ImagePlan], measured: Sequence[tuple[BandTask, BandPlan]]) -> list[ImagePlan]:
    """The plans with their measured bands, and what is doubtful about them."""
    found = list(plans)
    for task, band in sorted(measured, key=lambda pair: (pair[0].place, pair[0].number)):
        plan = found[task.place]
        bands = (*plan.bands[: task.number], band, *plan.bands[task.number + 1 :])
        notes = (f"the background is doubtful: {band.sky.doubt}",) if band.sky.doubt else ()
        found[task.place] = replace(plan, bands=bands, notes=tuple(dict.fromkeys((*plan.notes, *notes))))
    return found
