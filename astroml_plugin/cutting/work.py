"""One task of a cut, start to end: each tile read once, its stamps with their objects, blocks written as they fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.objects import ObjectBuckets
from astroml_plugin.catalog.objects.carried import carried
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import RawStamps, crowded, raw_stamps
from astroml_plugin.cutouts.calibration import factors, known
from astroml_plugin.cutting.fits_files import FitsFolder
from astroml_plugin.cutting.plan import CutSettings, CutTask
from astroml_plugin.cutting.stamps_store import StampsOutput
from astroml_plugin.pixels import SparseTile, Tile, whole_tile
from astroml_plugin.sources.cut_columns import PLACES, CutColumns
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, on_sky

GIVEN = "given_"
"""Begins the name of a label whose own name is one of ours."""


@dataclass(frozen=True)
class Piece:
    """Stamps with their objects, in one order."""

    stamps: RawStamps
    """Pixels."""
    objects: pa.Table
    """object_id, ra, dec, `PLACES`, labels."""


@dataclass(frozen=True)
class CutDone:
    """Report of a finished task."""

    rows: int
    """Stamps written."""
    bytes: int
    """Bytes of their pixels."""


def cut_task(task: CutTask) -> CutDone:
    """Cut and write the blocks of a task that are not there yet.

    Raises:
        CorruptError: pixels or objects cannot be read.
        OSError: nothing can be written.
    """
    settings = task.settings
    output = output_of(settings, task.tiles)
    there = output.present()
    rows = size = 0
    for block, piece in zip(task.blocks, _blocks(task), strict=True):
        if block in there:
            continue
        output.write(block, piece.stamps, piece.objects)
        rows, size = rows + len(piece.stamps), size + piece.stamps.nbytes
    return CutDone(rows, size)


def output_of(settings: CutSettings, tiles: Sequence[TileInfo] = ()) -> StampsOutput | FitsFolder:
    """The output of a cut, open for blocks with stamps of some tiles."""
    if settings.kind == "fits":
        return FitsFolder(settings, tiles)
    return StampsOutput(settings.out)


def _blocks(task: CutTask) -> Iterator[Piece]:
    """Pieces of exactly a block, the last one shorter; no more than two blocks are held."""
    most = task.settings.layout.rows
    held: list[Piece] = []
    count = 0
    for piece in _pieces(task, most):
        held.append(piece)
        count += len(piece.stamps)
        if count >= most:
            whole = _joined(held)
            yield _part(whole, slice(0, most))
            held, count = [_part(whole, slice(most, count))] if count > most else [], count - most
    if count:
        yield _joined(held)


def _joined(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    tables = pa.concat_tables([piece.objects for piece in pieces], promote_options="permissive")
    return Piece(RawStamps.concatenate([piece.stamps for piece in pieces]), tables)


def _part(piece: Piece, chosen: slice) -> Piece:
    return Piece(piece.stamps.part(chosen), piece.objects.slice(chosen.start, chosen.stop - chosen.start))


def _pieces(task: CutTask, most: int) -> Iterator[Piece]:
    """Stamps of each tile, at most `most` at a time."""
    settings = task.settings
    survey, buckets = Survey.open(settings.survey), ObjectBuckets.open(settings.objects)
    for info in task.tiles:
        rows, beside = placed_rows(settings, buckets, info)
        x, y = (np.asarray(rows[name], np.float64) for name in ("x", "y"))
        held = tile_around(settings, survey, info, x, y)
        for start in range(0, len(x), most):
            part = slice(start, start + most)
            stamps = stamps_of(settings, info, held, x[part], y[part])
            yield _piece(settings, info, stamps, rows.slice(start, most), beside[part])


def placed_rows(settings: CutSettings, buckets: ObjectBuckets, info: TileInfo) -> tuple[pa.Table, np.ndarray]:
    """Objects of a tile that are cut there, and (n,) bool: whether another object of the table lies beside each."""
    rows = buckets.read(info.name)
    beside = crowded(*(np.asarray(rows[name], np.float64) for name in ("x", "y")))
    if settings.every_image:
        return rows, beside
    chosen = np.asarray(rows["primary"])
    return rows.filter(pa.array(chosen)), beside[chosen]


def tile_around(settings: CutSettings, survey: Survey, info: TileInfo, x: np.ndarray, y: np.ndarray) -> Tile:
    """A tile, of which at least the pixels of stamps around (n,) positions are read; others may be 0."""
    tile = survey.read_around(info, x, y, settings.size, settings.layout.bands)
    return whole_tile(tile) if isinstance(tile, SparseTile) else tile


def stamps_of(settings: CutSettings, info: TileInfo, tile: Tile, x: np.ndarray, y: np.ndarray) -> RawStamps:
    """Stamps of a tile around (n,) positions in the parent image, in the unit and with the arrays of the layout."""
    stamps, layout = raw_stamps(tile, x, y, settings.size, (info.outer.x0, info.outer.y0)), settings.layout
    factor = _factor(settings, info)
    stamps = stamps if factor is None else stamps.in_unit(factor)
    return RawStamps(
        stamps.image,
        stamps.variance if layout.variance else None,
        stamps.mask,
        stamps.psf if layout.psf_size else None,
    )


def _factor(settings: CutSettings, info: TileInfo) -> np.ndarray | None:
    """Factors (band,) to the common unit, NaN without a zero point; None where pixels stay as they are."""
    if settings.zero_point is None:
        return None
    bands = settings.layout.bands
    found = factors(known([info.zero_points.get(band) for band in bands], len(bands)), settings.zero_point)
    return None if found is None else found.numpy()


def _piece(settings: CutSettings, info: TileInfo, stamps: RawStamps, rows: pa.Table, beside: np.ndarray) -> Piece:
    layout = settings.layout
    lacking = (0 if layout.variance else ObjectFlag.NO_VARIANCE) | (0 if layout.psf_size else ObjectFlag.NO_PSF)
    flags = stamps.flags | np.where(np.asarray(rows["duplicate"]), int(ObjectFlag.DUPLICATE_ID), 0) | int(lacking)
    return Piece(stamps, object_columns(info, rows, beside, flags))


def object_columns(info: TileInfo, rows: pa.Table, beside: np.ndarray, flags: np.ndarray | None) -> pa.Table:
    """Table of the objects of a tile: ids, places and labels.

    Args:
        info: the tile.
        rows: its objects, as `placed_rows` gives them.
        beside: (n,) whether another object lies beside each.
        flags: (n,) bits of `ObjectFlag`; None: nobody has looked at the pixels, and there is no such column.
    """
    count = rows.num_rows
    x, y = (np.asarray(rows[name], np.float64) for name in ("x", "y"))
    ra, dec, jacobian = on_sky(info, info.wcs(), x, y)
    columns = {
        "object_id": rows["object_id"],
        "ra": _sky(rows["ra"], ra),
        "dec": _sky(rows["dec"], dec),
        **{"image": pa.array([info.image] * count), "tile": pa.array([info.name] * count), "x": x, "y": y},
        **({} if flags is None else {"flags": pa.array(flags, pa.int32())}),
        **CutColumns(None if info.header is None else jacobian, beside).columns(),
    }
    labels = carried(rows)
    taken = {"object_id", "ra", "dec", *PLACES}
    for name in labels.column_names:
        columns[GIVEN + name if name in taken else name] = labels[name]
    return pa.table(columns)


def _sky(given: pa.ChunkedArray, found: np.ndarray) -> pa.ChunkedArray:
    """Degrees as given, else as the WCS says; null without either."""
    return pc.coalesce(given.cast(pa.float64()), pa.array(found, mask=~np.isfinite(found)))
