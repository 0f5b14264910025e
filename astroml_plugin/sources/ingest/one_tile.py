"""One image, from files or from Python, as one tile in memory: read as an ingest reads it, and nothing is stored."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import with_changes
from astroml_plugin.pixels import Tile
from astroml_plugin.sky.wcs import cut_tiles
from astroml_plugin.sources.ingest.band_pixels import planes_of
from astroml_plugin.sources.ingest.fields import NO_FILE, by_name, drop_companions, fields_of
from astroml_plugin.sources.ingest.in_memory import given_images
from astroml_plugin.sources.ingest.looking import no_psf
from astroml_plugin.sources.ingest.measuring import band_tasks, measure_band, with_measured
from astroml_plugin.sources.ingest.opening import open_fits, stem_of
from astroml_plugin.sources.ingest.options import IngestOptions
from astroml_plugin.sources.ingest.plans import ImagePlan, plan_field
from astroml_plugin.sources.ingest.skies import Skies
from astroml_plugin.sources.ingest.tiles import cached_psf, made
from astroml_plugin.sources.ingest.to_survey import auto_tile_size, bands_and_group, psf_shape_of
from astroml_plugin.sources.tile_arrays import HALO
from astroml_plugin.sources.tile_table import TileInfo

_NO_LIMIT = 2**31
"""Pixels of a side: the whole image is one tile, however large it is."""


@dataclass(frozen=True)
class ReadTile:
    """An image as one tile."""

    tile: Tile
    """Pixels, with the halo around those of the image."""
    info: TileInfo
    """Place, WCS, units and zero points."""
    bands: tuple[str, ...]
    """Names of the band axis."""
    notes: tuple[str, ...]
    """Sentences of planes left out, guesses and doubts."""


def read_images(
    items: Sequence[Any], bands: Sequence[str] | str | None, options: IngestOptions | None, changes: Mapping[str, Any]
) -> ReadTile:
    """One image as one tile, with the pixels, units and sky that an ingest would store.

    Args:
        items: files, URLs or images from Python (see `in_memory.as_files`): one, or one per band.
        bands: names of the bands, as a sequence or "g,r,i"; None: those of the files.
        options: how they are read.
        changes: single fields of the options by name.

    Raises:
        InputError: as an ingest; or there are several images.
    """
    names = tuple(name.strip() for name in bands.split(",")) if isinstance(bands, str) else bands
    named = {} if names is None else {"bands": tuple(names)}
    if isinstance(zero_point := changes.get("zero_point"), int | float):
        changes = {**changes, "zero_point": (float(zero_point),)}
    chosen = with_changes(IngestOptions, options, {**changes, **named}, "the options of a tile")
    chosen.refuse_useless("FITS")
    if chosen.tile_size is not None:
        raise InputError("tile_size would do nothing, as the whole image is one tile: leave it away")
    with tempfile.TemporaryDirectory(prefix="astroml-") as folder, given_images(items, folder, chosen.bands) as given:
        if given.bands is not None:
            chosen = replace(chosen, bands=given.bands)
        return _read(list(given.urls), chosen)


def _read(urls: list[str], options: IngestOptions) -> ReadTile:
    urls = drop_companions([url if url == NO_FILE else storage.named(url) for url in urls], options)
    inputs = by_name(urls, options)
    bands, group = bands_and_group(inputs.images, options.bands, options)
    options.zero_points(bands, by_pixels=True)
    fields = fields_of(inputs.images, group, bands, options, inputs.beside)
    plans = [plan for field in fields for plan in plan_field(field, bands, options)]
    if len(plans) > 1:
        told = ", ".join(plan.name for plan in plans[:4])
        raise InputError(
            f"{len(plans)} images are given ({told}), a tile holds one: choose one (hdu=), or ingest them into a survey"
        )
    found = {(0, task.place[1]): measure_band(task) for task in band_tasks(plans, options)}
    (plan,) = with_measured(plans, found)
    halo = HALO if options.halo is None else options.halo
    side = auto_tile_size([plan], halo, _NO_LIMIT)
    (geometry,) = cut_tiles(*plan.shape, side, halo)
    psf_shape = psf_shape_of([plan], side, options.psf_from_stars)
    with contextlib.ExitStack() as stack:
        files = {place.url for band in plan.bands for place in planes_of(band)}
        opened = {url: stack.enter_context(open_fits(url, scan=False)) for url in sorted(files)}
        tile, info = made(plan, geometry, opened, bands, psf_shape)
    return ReadTile(tile, info, bands, tuple(dict.fromkeys(_notes(plan, info))))


def _notes(plan: ImagePlan, info: TileInfo) -> list[str]:
    """Sentences that an ingest would say of this image."""
    skies = Skies()
    skies.add([info])
    doubts = [doubt for band in plan.bands for doubt in band.sky.doubts]
    psfs = {band.psf for band in plan.bands if band.psf is not None and band.psf.hdu is None}
    lost = [f"{stem_of(psf.url)}: {told}" for psf in psfs if (told := no_psf(cached_psf(psf)))]
    poor = [
        f"the PSF from stars is poor: {band.stars.quality.doubt}"
        for band in plan.bands
        if band.stars is not None and band.stars.quality.doubt
    ]
    return [*plan.notes, *doubts, *lost, *poor, *skies.warnings(), *skies.notes()]
