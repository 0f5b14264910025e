"""Which tiles are cut together, into which blocks, and what their stamps have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.objects import ObjectBuckets
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutting.options import CutoutOptions
from astroml_plugin.pixels import NANOJANSKY
from astroml_plugin.sources.stamps import StampLayout
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

_MOST_TILES = 256
"""Tiles that one task cuts, at most."""
_TASKS = 64
"""Tasks that there are at least, where as many tiles hold objects."""
_VIEWED = 8
"""Stored blocks that one of a view is as large as, at most."""
_SAME_SCALE = 0.02
"""Relative difference of pixel scales within one store."""


@dataclass(frozen=True)
class CutSettings:
    """Values that all tasks of a cut share, small enough to travel with each."""

    survey: str
    """URL of the survey."""
    objects: str
    """Folder of the objects by tile."""
    out: str
    """Where stamps go: URL of Stamps, or folder of FITS files."""
    kind: str
    """"stamps", "fits" or "view"."""
    layout: StampLayout
    """Bands, size, arrays and unit of all stamps."""
    every_image: bool
    """Whether rows that are not primary are cut too."""
    zero_point: float | None
    """Unit that pixels are brought to, where the tiles differ; None: they stay as they are."""

    @property
    def size(self) -> int:
        """Side of a stamp in pixels."""
        return self.layout.size[0]


@dataclass(frozen=True)
class CutTask:
    """Some tiles to be cut by one worker, each read once, and the blocks that it writes."""

    settings: CutSettings
    """Shared by all tasks."""
    tiles: tuple[TileInfo, ...]
    """Tiles in index order."""
    first_block: int
    """Number of its first block in the output."""
    rows: int
    """Stamps that it gives."""

    @property
    def blocks(self) -> range:
        """Numbers of its blocks; all but the last are full."""
        count = -(-self.rows // self.settings.layout.rows)
        return range(self.first_block, self.first_block + count)

    @property
    def name(self) -> str:
        """Name of the first tile, and how many more there are."""
        first = self.tiles[0].name
        return first if len(self.tiles) == 1 else f"{first} and {len(self.tiles) - 1} more tiles"


@dataclass(frozen=True)
class CutPlan:
    """Everything that is known of a cut before its first stamp."""

    settings: CutSettings
    """Shared by all tasks."""
    tasks: tuple[CutTask, ...]
    """In index order; blocks are counted from 0."""
    identity: str
    """Digest of all that decides the stamps."""
    warnings: tuple[str, ...]
    """Sentences about arrays that are left out and pixels that are brought to another unit."""

    @property
    def rows(self) -> int:
        """Stamps altogether."""
        return sum(task.rows for task in self.tasks)

    @property
    def blocks(self) -> int:
        """Blocks altogether."""
        return self.tasks[-1].blocks.stop - self.tasks[0].first_block

    @property
    def tiles(self) -> int:
        """Tiles that hold objects."""
        return sum(len(task.tiles) for task in self.tasks)

    def at(self, out: str, first_block: int) -> CutPlan:
        """The plan for an output whose first free block has this number."""
        settings = replace(self.settings, out=out)
        moved = (
            replace(task, settings=settings, first_block=first_block + task.first_block - self.tasks[0].first_block)
            for task in self.tasks
        )
        return replace(self, settings=settings, tasks=tuple(moved))


def plan_cut(survey: Survey, buckets: ObjectBuckets, options: CutoutOptions, out: str, kind: str) -> CutPlan:
    """Plan a cut.

    Args:
        survey: whose pixels are cut.
        buckets: the objects by tile.
        options: which stamps.
        out: URL of the output.
        kind: "stamps", "fits" or "view".

    Raises:
        InputError: no object lies on the survey; bands that it does not have; a stamp larger than the halo allows, or
            images of different pixel scales.
    """
    counts = {unit: rows for unit, (rows, _) in buckets.units().items()} if options.every_image else buckets.primaries()
    counts = {unit: rows for unit, rows in counts.items() if rows}
    tiles = [info for info in survey.iter_tiles() if info.name in counts]
    if not tiles:
        why = sorted(set(buckets.unplaced()["reason"].to_pylist()))
        raise InputError(
            f"none of the {buckets.rows} objects lies on {storage.redact(survey.url)} ({', '.join(why)}): check their "
            "columns and frame (--columns, --frame), or the survey"
        )
    bands = options.bands or survey.bands
    if unknown := [band for band in bands if band not in survey.bands]:
        raise InputError(f"the survey has the bands {', '.join(survey.bands)}, not {', '.join(unknown)}")
    scale = _common_scale(survey, {info.name for info in tiles})
    size = options.pixels(scale)
    _refuse_small_halo(survey, tiles, size)
    zero_points, target, warnings = _common_unit(tiles, bands)
    held, more = _common_arrays(tiles)
    layout = StampLayout(
        bands=tuple(bands),
        size=(size, size),
        block=options.block,
        pixel_scale=scale,
        zero_points=zero_points,
        psf_size=None if not held["psf"] or survey.psf_shape is None else survey.psf_shape[-2:],  # type: ignore[arg-type]
        variance=held["variance"],
        mask=True,
    )
    total = sum(counts[info.name] for info in tiles)
    layout = replace(layout, block=options.block or _block(layout, total, len(tiles), kind))
    settings = CutSettings(survey.url, buckets.url, out, kind, layout, options.every_image, target)
    tasks = tuple(_tasks(settings, tiles, counts))
    pixels = [[info.index, info.checksum] for info in tiles]
    parts: list[Any] = [survey.id, pixels, buckets.url.rpartition("/")[2], size, list(bands), options.every_image]
    return CutPlan(settings, tasks, storage.digest(*parts, layout.rows)[:16], (*warnings, *more))


def _common_scale(survey: Survey, names: set[str]) -> float | None:
    """Median arcsec per pixel of the tiles; None without a WCS."""
    table = survey.index_table()
    mine = table.filter(pa.array([name in names for name in table["name"].to_pylist()], pa.bool_()))
    scales = mine["pixel_scale"].drop_null().to_numpy()
    if not len(scales):
        return None
    median = float(np.median(scales))
    if np.abs(scales / median - 1).max() > _SAME_SCALE:
        raise InputError(
            f"the objects lie on images of {scales.min():.4g} to {scales.max():.4g} arcsec per pixel, and stamps of "
            "one output have one scale: cut the objects of each kind of image apart"
        )
    return median


def _refuse_small_halo(survey: Survey, tiles: list[TileInfo], size: int) -> None:
    """InputError where a stamp may need pixels that only the next tile has."""
    step = survey.tile_size - 2 * survey.halo
    if size > 2 * survey.halo and any(max(info.image_shape) > step for info in tiles):
        raise InputError(
            f"stamps of {size} px need a halo of {(size + 1) // 2} px, and the survey has {survey.halo}: ingest again "
            f"with --halo {(size + 1) // 2} or more, or cut smaller stamps"
        )


def _common_unit(
    tiles: list[TileInfo], bands: tuple[str, ...] | list[str]
) -> tuple[tuple[float | None, ...], float | None, list[str]]:
    """Zero points of the stamps; the unit that pixels are brought to, where tiles differ; what is to be said."""
    known = {tuple(info.zero_points.get(band) for band in bands) for info in tiles}
    if len(known) == 1:
        return known.pop(), None, []
    said = "the tiles differ in their zero points: pixels are brought to nJy"
    if any(zero is None for zeros in known for zero in zeros):
        said += ", and bands of tiles without a zero point are NaN"
    return (NANOJANSKY,) * len(bands), NANOJANSKY, [said]


def _common_arrays(tiles: list[TileInfo]) -> tuple[dict[str, bool], list[str]]:
    """Which arrays all tiles have, and what is to be said where only some have one."""
    held, said = {}, []
    for name in ("variance", "psf"):
        have = [getattr(info, f"has_{name}") for info in tiles]
        held[name] = all(have)
        if any(have) and not all(have):
            without = next(info.image for info, there in zip(tiles, have, strict=True) if not there)
            said.append(f"the {name} is left out: {have.count(False)} of {len(have)} tiles have none, as of {without}")
    return held, said


def _block(layout: StampLayout, stamps: int, tiles: int, kind: str) -> int:
    """Stamps per block: a power of two, few enough that there is work for many workers.

    Those of a view, which reads a tile for each of its blocks, hold a whole tile's where these are many.
    """
    wanted = 2 ** int(np.ceil(np.log2(max(1, -(-stamps // min(tiles, _TASKS))))))
    most = layout.rows
    if kind == "view" and stamps > most * tiles:
        most = min(_VIEWED * most, 2 ** int(np.ceil(np.log2(stamps / tiles))))
    return int(min(most, wanted))


def _tasks(settings: CutSettings, tiles: list[TileInfo], counts: dict[str, int]) -> Iterator[CutTask]:
    """Neighbouring tiles together until they fill a block."""
    held: list[TileInfo] = []
    rows = first = 0
    for info in tiles:
        held.append(info)
        rows += counts[info.name]
        if rows >= settings.layout.rows or len(held) == _MOST_TILES or info is tiles[-1]:
            task = CutTask(settings, tuple(held), first, rows)
            yield task
            held, rows, first = [], 0, task.blocks.stop
