"""Distributed survey image processing: tiles in Zarr, resident PyTorch models on Dask, catalogs in Parquet.

The names below are the public nouns (docs/api.md). Each is imported when it is first used, so that `import
astroml_plugin` costs nothing. Whole runs are the functions of `workflows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astroml_plugin.core.lazily import names_of
from astroml_plugin.core.version import version

if TYPE_CHECKING:
    from astroml_plugin.catalog import Column
    from astroml_plugin.catalog.answers import QueryResult
    from astroml_plugin.catalog.asking import Catalog, Selection
    from astroml_plugin.core.errors import AstromlError, InputError
    from astroml_plugin.core.flags import ObjectFlag, flag_names
    from astroml_plugin.cutouts import Cutouts, Grid
    from astroml_plugin.inference import (
        Measured,
        MeasureOptions,
        Unit,
        UnitResult,
        declared_schema,
        measure,
        measure_frame,
    )
    from astroml_plugin.inference.partition import measure_partition
    from astroml_plugin.sky.wcs import Wcs
    from astroml_plugin.sources.labels import float_labels
    from astroml_plugin.sources.stamps import Stamps, open_source
    from astroml_plugin.sources.survey import Survey
    from astroml_plugin.sources.tile import Tile
    from astroml_plugin.sources.tile_arrays import TilePlace
    from astroml_plugin.sources.tile_table import TileInfo
    from astroml_plugin.tasks.base import Task, TaskSettings
    from astroml_plugin.tasks.detection import DetectingTask, Detections
    from astroml_plugin.tasks.normalisation import Normalisation
    from astroml_plugin.training.bundle import Card, ModelBundle
    from astroml_plugin.training.labelled import LabelledStamps

__version__: str

__all__ = [
    "AstromlError",
    "Card",
    "Catalog",
    "Column",
    "Cutouts",
    "DetectingTask",
    "Detections",
    "Grid",
    "InputError",
    "LabelledStamps",
    "MeasureOptions",
    "Measured",
    "ModelBundle",
    "Normalisation",
    "ObjectFlag",
    "QueryResult",
    "Selection",
    "Stamps",
    "Survey",
    "Task",
    "TaskSettings",
    "Tile",
    "TileInfo",
    "TilePlace",
    "Unit",
    "UnitResult",
    "Wcs",
    "__version__",
    "declared_schema",
    "flag_names",
    "float_labels",
    "measure",
    "measure_frame",
    "measure_partition",
    "open_source",
]

_HOMES = {
    "catalog": "Column",
    "catalog.answers": "QueryResult",
    "catalog.asking": "Catalog Selection",
    "core.errors": "AstromlError InputError",
    "core.flags": "ObjectFlag flag_names",
    "cutouts": "Cutouts Grid",
    "inference": "MeasureOptions Measured Unit UnitResult declared_schema measure measure_frame",
    "inference.partition": "measure_partition",
    "sky.wcs": "Wcs",
    "sources.labels": "float_labels",
    "sources.stamps": "Stamps open_source",
    "sources.survey": "Survey",
    "sources.tile": "Tile",
    "sources.tile_arrays": "TilePlace",
    "sources.tile_table": "TileInfo",
    "tasks.base": "Task TaskSettings",
    "tasks.detection": "DetectingTask Detections",
    "tasks.normalisation": "Normalisation",
    "training.bundle": "Card ModelBundle",
    "training.labelled": "LabelledStamps",
}
"""Modules of the public nouns."""


_noun, _nouns = names_of(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    return version() if name == "__version__" else _noun(name)


def __dir__() -> list[str]:
    return sorted({*_nouns(), "__version__"})
