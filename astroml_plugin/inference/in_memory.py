"""One pure function: pixels, objects and bundles in memory to a table. No store, no catalog, no Dask.

`infer` is the middle of this function between a reader and a writer: equal objects give equal rows, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from os import PathLike
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.objects import ObjectSettings
from astroml_plugin.catalog.objects.in_memory import objects_of
from astroml_plugin.catalog.objects.placing import Placer, in_units_order
from astroml_plugin.catalog.parts import with_healpix
from astroml_plugin.catalog.schema import verify
from astroml_plugin.compute.cluster import ClusterOptions
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.deciding import forms_here, with_forms
from astroml_plugin.inference.facts import TileFacts
from astroml_plugin.inference.measuring import Measured, measure_work
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import models_of
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable, run_choices
from astroml_plugin.inference.planning import (
    Bundle,
    assigned,
    check_bundles,
    load_bundles,
    notes,
    pixels_needed,
    schema_of,
)
from astroml_plugin.inference.reading import NO_ROWS, TileWork, calibrated, rows_of
from astroml_plugin.sources.tile import Tile

OUTSIDE = ("refuse", "leave")
"""Choices for objects that the tile does not own."""

_OF_RUNS = (*(item.name for item in fields(ClusterOptions)), "memory", "unit_timeout", "shard", "label_maps")
"""Execution options that say something about runs of many tiles alone."""


def measure(
    tile: Tile,
    objects: Any,
    bundles: Bundle | Sequence[Bundle],
    *,
    options: MeasureOptions | None = None,
    execution: ExecutionOptions | None = None,
    outside: str = "refuse",
    **changes: Any,
) -> Measured:
    """Measure the objects of a tile with one or several bundles, here and now; nothing is read, written or changed.

    Models stay in the process, by the bundle's digest, the device and the options. May be called from several threads.

    Args:
        tile: pixels of all bands, see `Tile`.
        objects: what to measure: a table of astropy, pandas or Arrow, a mapping of columns, or an `ObjectTable` that
            says how to read it: ids, and x, y (0-based pixels of the parent image) or ra, dec. None where one of the
            bundles finds the objects.
        bundles: one or several; give `ModelBundle` where you call this often.
        options: options that change rows, as for `infer`.
        execution: device, batch and compiling, as for `infer`.
        outside: "refuse" objects that the tile does not own, or "leave" them to `Measured.unplaced`.
        changes: single fields of the two option objects by name, for example `band="r"` or `device="cpu"`.

    Returns:
        One row per object that the tile owns, in the order given, with the columns of `declared_schema`; the label map
        where objects were found.

    Raises:
        InputError: a tile, objects, bundles or options that do not fit one another; one sentence says what to do.
        torch.OutOfMemoryError: the device does not hold one stamp.
    """
    if not isinstance(tile, Tile):
        raise InputError(f"a tile cannot be a {type(tile).__name__}: make one with Tile.from_arrays or Tile.from_fits")
    if outside not in OUTSIDE:
        raise InputError(f"outside is {outside!r}: choose one of {', '.join(OUTSIDE)}")
    loaded = load_bundles(bundles)
    source = TileFacts.of(tile)
    fitting, job = assigned(loaded, source, *_choices(options, execution, changes))
    check_bundles(fitting, source, job)
    job = replace(job, **pixels_needed(fitting, source, job))
    held = {model.sha256: model for _, model in loaded}
    job = with_forms(job, partial(forms_here, loaded=held))
    if job.detecting and objects is not None:
        raise InputError(
            f"bundle {job.detecting} finds the objects itself: give objects=None, or leave that bundle away"
        )
    placed, unplaced = (None, None) if job.detecting else _placed(tile, objects, outside)
    meter = Meter()
    with meter.stage("read"):
        rows, jacobian = NO_ROWS if placed is None else rows_of(placed, tile.info, tile.wcs)
        pixels = tile.select(job.bands) if placed is None or placed.num_rows else None
        info = calibrated(tile.info, job, tile.bands)
    work = TileWork(pixels, info, job.bands, rows, jacobian, tile.pixel_scale)
    found = measure_work(work, models_of(job, held), meter)
    table = verify(with_healpix(found.table), schema_of(fitting, job))
    if placed is not None:
        table = table.take(pc.sort_indices(placed["row"]))
    told = (*notes(fitting, source, job), *sorted(meter.refused))
    return replace(found, table=table, unplaced=unplaced, notes=told, seconds=dict(meter.seconds))


def declared_schema(
    bundles: Bundle | Sequence[Bundle],
    *,
    bands: Sequence[str] | None = None,
    options: MeasureOptions | None = None,
    **changes: Any,
) -> pa.Schema:
    """The Arrow schema of the rows that bundles give, with units, UCDs and descriptions as metadata of the fields.

    Args:
        bundles: as for `measure`.
        bands: bands of the tiles; the columns of a bundle that finds objects may depend on them. Default: those that
            the bundles were trained on.
        options: options that change rows.
        changes: single fields of the options by name.

    Raises:
        InputError: bundles, bands or options that do not fit one another.
    """
    loaded = load_bundles(bundles)
    names = [name for _, model in loaded for name in model.bands] if bands is None else bands
    source = TileFacts(tuple(dict.fromkeys(names)), 0, (), None, ())
    return schema_of(*assigned(loaded, source, *_choices(options, None, changes)))


def bands_needed(
    bundles: Bundle | Sequence[Bundle],
    bands: Sequence[str],
    *,
    options: MeasureOptions | None = None,
) -> tuple[str, ...]:
    """Bands of a tile that bundles read, in the order of the bands: the others need not be at hand.

    Args:
        bundles: as for `measure`.
        bands: bands of the tile.
        options: options that change rows; zero points, one per band, need all bands.

    Raises:
        InputError: bundles, bands or options that do not fit one another.
    """
    if options is not None and len(options.zero_point) > 1:
        return tuple(bands)
    source = TileFacts(tuple(bands), 0, (), None, ())
    fitting, job = assigned(load_bundles(bundles), source, *_choices(options, None, {}))
    return tuple(pixels_needed(fitting, source, job)["bands"])


def _choices(
    options: MeasureOptions | None, execution: ExecutionOptions | None, changes: dict[str, Any]
) -> tuple[MeasureOptions, ExecutionOptions]:
    if useless := [name for name in _OF_RUNS if name in changes]:
        raise InputError(f"{', '.join(useless)} would do nothing for one tile, only for runs of many: leave it away")
    return run_choices(options, execution, changes)


def _placed(tile: Tile, objects: Any, outside: str) -> tuple[pa.Table, pa.Table]:
    """Objects that the tile owns, in the order in which they are measured (`ObjectBuckets.read`), and the others.

    Raises:
        InputError: none are given; or some lie elsewhere and that is refused.
    """
    if objects is None:
        raise InputError("no bundle here finds objects: give a table of objects, or a bundle that finds them")
    given = objects if isinstance(objects, ObjectTable) else ObjectTable(table=objects)
    if isinstance(given.table, str | PathLike):
        raise InputError(
            f"objects are the path {str(given.table)!r}: read it, nothing is read here; `infer` takes paths"
        )
    settings = ObjectSettings(**{name: getattr(given, name) for name in ObjectSettings.__dataclass_fields__})
    table = objects_of(given.table, settings)
    if tile.wcs is None and table.num_rows and table["x"].null_count == table.num_rows:
        raise InputError("the objects have positions on the sky and the tile has no WCS: give x, y, or a WCS")
    placed, unplaced = in_units_order(table, Placer(tile.images()))
    if unplaced.num_rows and outside == "refuse":
        first = unplaced.slice(0, 1).to_pylist()[0]
        place = ", ".join(f"{name} {first[name]:g}" for name in ("x", "y", "ra", "dec") if first[name] is not None)
        inner = tile.info.inner
        raise InputError(
            f"{unplaced.num_rows} of {table.num_rows} objects are not on pixels that the tile owns (x {inner.x0} to "
            f"{inner.x1}, y {inner.y0} to {inner.y1}), the first is {first['object_id']} ({place or 'no position'}: "
            f"{first['reason']}): leave them out, or have them listed with outside='leave'"
        )
    return placed, unplaced
