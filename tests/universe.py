"""A small sky made of noise and blobs, and models with random weights: enough to test the engine in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from astropy.io.fits import Header

from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.registry import TASKS, load
from astroml_plugin.pixels import Tile
from astroml_plugin.sky.wcs import Wcs, cut_tiles
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name
from astroml_plugin.training.bundle import Card, ModelBundle

SCALE = 0.2
"""Arcsec per pixel."""


def header(height: int, width: int, ra: float = 150.0, dec: float = 2.0, angle: float = 20.0) -> str:
    """WCS cards of a rotated TAN image."""
    cosine, sine = np.cos(np.radians(angle)) * SCALE / 3600, np.sin(np.radians(angle)) * SCALE / 3600
    cards = {
        **{"NAXIS": 2, "NAXIS1": width, "NAXIS2": height, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
        **{"CRVAL1": ra, "CRVAL2": dec, "CRPIX1": width / 2, "CRPIX2": height / 2, "CUNIT1": "deg", "CUNIT2": "deg"},
        **{"CD1_1": -cosine, "CD1_2": sine, "CD2_1": sine, "CD2_2": cosine, "RADESYS": "ICRS"},
    }
    return Header(cards).tostring(sep="\n")


def field(height: int, width: int, bands: int, seed: int = 3) -> np.ndarray:
    """(bands, height, width) float32: noise and round blobs."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (bands, height, width))
    y, x = np.mgrid[:height, :width]
    for _ in range(height * width // 2000):
        cy, cx, flux = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(20, 200)
        near = (slice(max(0, int(cy) - 12), int(cy) + 12), slice(max(0, int(cx) - 12), int(cx) + 12))
        blob = flux * np.exp(-((y[near] - cy) ** 2 + (x[near] - cx) ** 2) / 18)
        image[(slice(None), *near)] += blob
    return image.astype(np.float32)


def make_survey(
    url: str,
    *,
    shape: tuple[int, int] = (300, 400),
    tile_size: int = 192,
    halo: int = 32,
    bands: tuple[str, ...] = ("r",),
    name: str = "field",
    seed: int = 3,
    wcs: bool = True,
    ra: float = 150.0,
    dec: float = 2.0,
    variance: bool = True,
    zero_points: Sequence[float | None] | None = None,
    change: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None,
) -> Survey:
    """A survey of one parent image; called again with another name, it adds an image.

    `change` may alter the parent's image, variance and mask in place.
    """
    psf = _psf(len(bands))
    try:
        survey = Survey.open(url)
    except Exception:
        psf_shape = (1, 1, *psf.shape[-2:])
        survey = Survey.create(url, bands=bands, tile_size=tile_size, halo=halo, psf_shape=psf_shape, variance=variance)
    image = field(*shape, len(bands), seed)
    spread, marks = np.ones_like(image), np.zeros(image.shape, np.uint32)
    if change is not None:
        change(image, spread, marks)
    cards = header(*shape, ra, dec) if wcs else None
    cuts = cut_tiles(*shape, tile_size, halo)
    first = survey.reserve(len(cuts))
    rows = []
    for index, geometry in enumerate(cuts, first):
        box = geometry.outer
        padded = np.full((len(bands), tile_size, tile_size), np.nan, np.float32)
        noise = padded.copy()
        mask = np.full(padded.shape, int(MaskBit.NO_DATA), np.uint32)
        inside = box.clipped(*shape)
        there = (
            slice(None),
            slice(inside.y0 - box.y0, inside.y1 - box.y0),
            slice(inside.x0 - box.x0, inside.x1 - box.x0),
        )
        of = (slice(None), slice(inside.y0, inside.y1), slice(inside.x0, inside.x1))
        padded[there], noise[there], mask[there] = image[of], spread[of], marks[of]
        tile = Tile(padded, noise if variance else None, mask, psf)
        checksum = survey.write_tile(index, tile)
        rows.append(
            TileInfo(
                index=index,
                name=tile_name(name, geometry.row, geometry.column),
                image=name,
                image_shape=shape,
                row=geometry.row,
                column=geometry.column,
                outer=box,
                inner=geometry.inner,
                header=None if cards is None else Wcs.from_header(cards).shifted(box.x0, box.y0).header,
                units=dict.fromkeys(bands, "nJy"),
                zero_points=dict(zip(bands, zero_points or [31.4] * len(bands))),
                has_band=dict.fromkeys(bands, True),
                has_variance=variance,
                has_mask=True,
                has_psf=True,
                source=f"{name}.fits",
                source_id=name,
                source_tiles=len(cuts),
                checksum=checksum,
                bytes=tile.nbytes,
            )
        )
    survey.commit(rows)
    return Survey.open(url)


def _psf(bands: int, size: int = 15) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    psf = np.exp(-(x**2 + y**2) / 9.0)
    return np.broadcast_to((psf / psf.sum()).astype(np.float32), (bands, 1, 1, size, size)).copy()


def make_objects(
    path: Path, count: int = 200, shape: tuple[int, int] = (300, 400), seed: int = 5, **extra: object
) -> str:
    """A Parquet table of `count` objects at random sky positions inside the field; returns its path."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-0.4, shape[1] - 0.6, count), rng.uniform(-0.4, shape[0] - 0.6, count)
    ra, dec = Wcs.from_header(header(*shape)).to_sky(x, y)
    pq.write_table(pa.table({"object_id": np.arange(count) + 10**17, "ra": ra, "dec": dec, **extra}), path)
    return str(path)


def make_bundle(
    url: str,
    *,
    task: str = "classify",
    bands: tuple[str, ...] = ("r",),
    size: int = 32,
    seed: int = 0,
    **settings: object,
) -> str:
    """A bundle of a small network with random weights; returns its URL."""
    torch.manual_seed(seed)
    values = {"bands": list(bands), "stamp_size": size, "pixel_scale": SCALE, **settings}
    if task == "classify":
        values = {"classes": ["star", "galaxy"], "normalisation": {"unit": "noise"}, "resize": "fit", **values}
    made = load(TASKS, task).from_settings(values)
    arguments = {"widths": [8, 16]}
    network = made.build_network("strided_cnn", arguments)
    ModelBundle.save(
        url, network, Card(url.rstrip("/").rpartition("/")[2], task, made.to_settings(), "strided_cnn", arguments)
    )
    return url


def make_stamps(url: str, *, count: int = 100, block: int = 32, size: int = 32, bands: tuple[str, ...] = ("r",)) -> str:
    """Stamps in several blocks; returns their URL."""
    rng = np.random.default_rng(7)
    stamps = Stamps.create(
        url, bands=bands, size=(size, size), block=block, pixel_scale=SCALE, psf_size=(15, 15), variance=True
    )
    blocks = -(-count // block)
    first = stamps.reserve(blocks)
    for number in range(blocks):
        rows = min(block, count - number * block)
        image = rng.normal(0, 1, (rows, len(bands), size, size)).astype(np.float32)
        psf = np.broadcast_to(_psf(len(bands))[:, 0, 0], (rows, len(bands), 15, 15)).astype(np.float32)
        checksum = stamps.write_block(first + number, image, np.ones_like(image), psf)
        ids = np.arange(number * block, number * block + rows) + 1000
        stamps.commit_objects(first + number, pa.table({"object_id": ids, "kind": ["star"] * rows}), checksum)
    return url
