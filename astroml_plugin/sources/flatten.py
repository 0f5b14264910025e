"""A survey without its background and with the variance of its noise, as bundles that find objects need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.pixels import Tile, pixel_bits
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.background import background
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo


def flatten_survey(survey: Survey, url: str) -> Survey:
    """Write the first band of a survey without its background, its variance that of its noise; what is there stays.

    Args:
        survey: images that still have their background.
        url: where the new survey goes.
    """
    bands = survey.bands[:1]
    if not storage.exists(storage.join(url, "zarr.json")):
        shape = survey.psf_shape
        psf_shape = None if shape is None else (shape[0], shape[1], shape[2], shape[3])
        Survey.create(url, bands=bands, tile_size=survey.tile_size, halo=survey.halo, psf_shape=psf_shape)
    flat = Survey.open(url)
    done = {info.name for info in flat.iter_tiles()}
    images: dict[str, list[TileInfo]] = {}
    for info in survey.iter_tiles():
        if info.name not in done:
            images.setdefault(info.image, []).append(info)
    for tiles in images.values():
        whole = [info for info in survey.iter_tiles() if info.image == tiles[0].image]
        level, noise = background(*mosaic(survey, whole))
        first = flat.reserve(len(tiles))
        flat.commit([_write(survey, flat, info, number, level, noise) for number, info in enumerate(tiles, first)])
    return Survey.open(url)


def _write(survey: Survey, flat: Survey, info: TileInfo, index: int, level: np.ndarray, noise: np.ndarray) -> TileInfo:
    """One tile of the other survey; pixels without a weight stay without one."""
    tile = survey.read_tile(info, flat.bands)
    inside = info.outer.clipped(*info.image_shape)
    here = (slice(None), *_slices(inside, info.outer))
    there = slice(inside.y0, inside.y1), slice(inside.x0, inside.x1)
    image = tile.image.astype(np.float32)
    image[here] -= level[there]
    variance = np.full(image.shape, np.nan, np.float32)
    variance[here] = noise[there] ** 2
    if tile.variance is not None:
        variance[~(tile.variance > 0)] = np.nan
    made = Tile(image, variance, tile.mask, tile.psf)
    band = dict.fromkeys(flat.bands, True)
    return replace(
        info, index=index, has_band=band, has_variance=True, checksum=flat.write_tile(index, made), bytes=made.nbytes
    )


def mosaic(survey: Survey, tiles: Sequence[TileInfo]) -> tuple[np.ndarray, np.ndarray]:
    """The first band of a parent image (y, x), put together from what each tile owns, and which pixels can be used."""
    image = np.full(tiles[0].image_shape, np.nan, np.float32)
    usable = np.zeros(image.shape, bool)
    for info in tiles:
        tile = survey.read_tile(info, survey.bands[:1])
        bits = pixel_bits(tile.image, tile.variance, tile.mask)[0]
        own, part = info.inner, _slices(info.inner, info.outer)
        image[own.y0 : own.y1, own.x0 : own.x1] = tile.image[0][part]
        usable[own.y0 : own.y1, own.x0 : own.x1] = bits[part] == 0
    return image, usable


def _slices(part: Box, outer: Box) -> tuple[slice, slice]:
    """Rows and columns of a tile's array that a box of the parent image has."""
    return slice(part.y0 - outer.y0, part.y1 - outer.y0), slice(part.x0 - outer.x0, part.x1 - outer.x0)
