"""One unit of a run, start to end: read, measure (upload, detect, each bundle), encode, write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.catalog import Catalog, PartInfo
from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.origins import Origin
from astroml_plugin.compute.device import device_name
from astroml_plugin.inference.budget import budget
from astroml_plugin.inference.job import OutputError, Unit, UnitResult
from astroml_plugin.inference.measuring import Measured, measure_work
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import RunModel, models_of
from astroml_plugin.inference.reading import opened, read_unit
from astroml_plugin.inference.resident import trim_malloc
from astroml_plugin.inference.telling import tell
from astroml_plugin.inference.unlike import counted


def run_unit(unit: Unit) -> UnitResult:
    """Do one unit, here and now: the work of a Dask task, of a pipeline's own node, of a test.

    Raises:
        OutputError: the part or the label map cannot be written.
        AstromlError, OSError: the unit's pixels or objects cannot be read.
    """
    meter, job = Meter(), unit.job
    models = models_of(job)
    with budget(job.execution.memory).holding(unit.nbytes):
        measured = read_and_measure(unit, models, meter)
    catalog: Catalog = opened(Catalog, job.catalog, job.run)
    device = device_name(str(models[0].device))
    origin = {"device": device, "torch": str(torch.__version__), "forms": dict(meter.forms)}
    part, data = encode(measured.table, unit, catalog, meter, measured.exposure, origin)
    maps: LabelMaps | None = None
    if job.execution.label_maps and measured.labels is not None:
        maps = opened(LabelMaps, job.catalog, job.run)
    write(unit.index, part, data, measured.labels, catalog, maps, meter)
    counts = dict(meter.centres), dict(meter.forms), counted(measured.table, models)
    del measured, data
    trim_malloc()
    tell(unit.name, part.rows, meter.seconds)
    return UnitResult(part, meter.seconds, meter.bytes, *counts, tuple(sorted(meter.refused)), device)


def read_and_measure(unit: Unit, models: Sequence[RunModel], meter: Meter, objects: pa.Table | None = None) -> Measured:
    """The unit's rows, and its label map where it detects them; its pixels are let go on return.

    Args:
        unit: tile or block.
        models: of the run.
        meter: takes time and bytes.
        objects: of the tile, where they came with the unit; see `reading.read_tile`.
    """
    with meter.stage("read"):
        work = read_unit(unit, objects)
    meter.add("read", count=work.nbytes)
    return measure_work(work, models, meter)


def encode(
    table: pa.Table,
    unit: Unit,
    catalog: Catalog,
    meter: Meter,
    exposure: Exposure | None = None,
    origin: Origin | None = None,
) -> tuple[PartInfo, bytes]:
    """The unit's part of the catalog: its manifest row, and its Parquet file as bytes."""
    with meter.stage("encode"):
        part, data = catalog.encode_part(table, unit.name, unit.digest, exposure, origin)
    meter.add("encode", count=table.nbytes)
    return part, data


def write(
    index: int,
    part: PartInfo,
    data: bytes,
    labels: np.ndarray | None,
    catalog: Catalog,
    maps: LabelMaps | None,
    meter: Meter,
) -> None:
    """Write a unit's label map and its part, each at once; the map first: a unit whose part is there is done.

    Args:
        index: of the tile.
        part, data: from `encode`.
        labels: (y, x) label map.
        catalog: where the part goes.
        maps: where the label map goes; None writes none.
        meter: takes time and bytes.

    Raises:
        OutputError: the catalog cannot be written.
    """
    with meter.stage("write"):
        try:
            if maps is not None and labels is not None:
                maps.write(index, labels)
            catalog.put_part(part, data)
        except OSError as error:
            raise OutputError(
                f"the catalog cannot be written ({error.strerror or error}): free space or choose another --out, "
                f"then run the same command again; finished units are kept"
            ) from error
    meter.add("write", count=len(data))
