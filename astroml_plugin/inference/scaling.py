"""Pixels of another scale than a bundle's, in a run: what is read and cut for them, and what the run says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from astroml_plugin.core.typing import F64
from astroml_plugin.cutouts import REACH, DeviceTile, psf_fwhms, source_side
from astroml_plugin.inference.facts import Source
from astroml_plugin.inference.reading import TileWork
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks import scale
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.pictures import shows

_WIDEST_PICTURE = 301
"""Pixels of the source: at 0.2 arcsec, galaxies of a radius of 9 arcsec."""


def widest(task: Task, source: Source) -> float:
    """Largest step at which the stamps of a task are surely cut from a survey; 1 where none are resampled."""
    finest = _finest(task, source)
    if finest is None or task.settings.sizes != "arcsec":
        return 1.0
    return max(1.0, float(task.settings.pixel_scale) / finest)


def side_read(task: Task, source: Source) -> int:
    """Side in pixels of a survey of what is read about each object, but for `REACH` on each side."""
    if not isinstance(source, Stamps) and shows(task.settings, source.bands):
        return picture_side(source.halo)
    if _finest(task, source) is None or isinstance(source, Stamps):
        return task.stamp_size
    if task.settings.sizes != "arcsec":  # each object's PSF decides, within the halo
        return max(task.stamp_size, 2 * source.halo)
    return max(task.stamp_size, source_side(task.stamp_size + 2 * REACH, widest(task, source)))


def picture_side(halo: int) -> int:
    """Side of the stamps of a survey that are shown as pictures: nobody knows how large an object is before."""
    return min(2 * halo - 1, _WIDEST_PICTURE)


def _finest(task: Task, source: Source) -> float | None:
    """Smallest arcsec per pixel of a source; None where no stamp of the task is resampled."""
    scales = source.pixel_scales
    if isinstance(task, DetectingTask) or scales is None:
        return None
    return scales[0] if any(scale.resamples(task.settings, one) for one in scales) else None


def steps_of(task: Task, work: TileWork, pixels: DeviceTile | None, bands: Sequence[str]) -> F64 | None:
    """(n,) sides of the pixels of each object's stamp, in pixels of its tile; None: all as they are."""
    settings, own = task.settings, work.pixel_scale
    if pixels is None or own is None or not scale.resamples(settings, own):
        return None
    halo = work.info.inner.x0 - work.info.outer.x0
    fwhm = scale.fwhm_of(settings, None, len(work), own)
    if pixels.psf is not None:
        cells = psf_fwhms(pixels.select(bands).psf).nanmean(0).cpu().numpy()  # type: ignore[arg-type]
        found = cells[_cell(work, cells.shape[0], "y"), _cell(work, cells.shape[1], "x")]
        fwhm = np.where(np.isfinite(found), found, fwhm)
    chosen = scale.steps(settings, own, fwhm, scale.widest_step(task.stamp_size, halo))
    return None if bool((chosen == 1).all()) else chosen


def _cell(work: TileWork, cells: int, axis: str) -> Any:
    """(n,) number of the PSF's cell of each object along an axis, as stamps have it."""
    start = work.info.outer.x0 if axis == "x" else work.info.outer.y0
    length = work.info.outer.width if axis == "x" else work.info.outer.height
    pixel = np.floor(np.asarray(work.rows.table[axis]) + 0.5) - start
    return np.clip(pixel / length * cells, 0, cells - 1).astype(np.int64)


def told(name: str, task: Task, source: Source) -> str:
    """A sentence of what a run does with pixels of another scale than a bundle's; empty where they are alike."""
    settings, scales = task.settings, source.pixel_scales
    if shows(settings, source.bands):
        told = ", ".join(settings.picture.bands)
        return f"{name}: bands {told} are shown to it as colour pictures, each scaled to the size of its object"
    if scales is None or not any(scale.differs(settings, one) for one in scales):
        return ""
    same = math.isclose(*scales, rel_tol=5e-3)
    have = f"{scales[0]:.3g}" if same else f"{scales[0]:.3g} to {scales[1]:.3g}"
    begin = f"{name}: pixels of {have} arcsec, trained at {settings.pixel_scale:.3g}:"
    low, high = settings.psf_fwhm
    within = f"a FWHM of {low:.3g} to {high:.3g} px" if high else "any FWHM"
    blind = not ("psf" in source.array_names or settings.assumed_psf_fwhm)
    unknown = " (none is given here)" if blind else ""
    if settings.sizes == "pixels" and (isinstance(task, DetectingTask) or settings.resample == "off"):
        return f"{begin} taken as they are. In training the PSF had {within}{unknown}: others are OUT_OF_DOMAIN"
    if settings.sizes == "pixels":
        return (
            f"{begin} taken as they are where the PSF has {within}{unknown}; else stamps are resampled so that it has"
        )
    if not any(scale.resamples(settings, one) for one in scales):
        return f"{begin} taken as they are, and all its rows are OUT_OF_DOMAIN"
    return f"{begin} stamps are resampled to {settings.pixel_scale:.3g} arcsec (--resample off takes them as they are)"
