"""A data butler with the tiles of a small sky, made once; nothing is collected where there is no middleware."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import astroml_plugin.lsst
from astroml_plugin.sources.survey import Survey
from tests import universe

HERE = importlib.util.find_spec("lsst") is not None
collect_ignore_glob = [] if HERE else ["test_*.py"]
DIMENSIONS = ("skymap", "tract", "patch")
SHAPE = (420, 640)
if HERE:
    os.environ["DAF_BUTLER_CONFIG_PATH"] = str(Path(astroml_plugin.lsst.__file__).parent / "butler")


@dataclass(frozen=True)
class Repository:
    """A repository in which every tile of a survey is a patch."""

    path: str
    survey: Survey
    objects: Path


def region(ra: float, dec: float, side: float) -> Any:
    """A square on the sky, degrees."""
    from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    return ConvexPolygon([UnitVector3d(LonLat.fromDegrees(ra + i * side, dec + j * side)) for i, j in corners])


def add_patches(butler: Any, skymap: str, count: int) -> None:
    """A sky map with one tract and patches in a row."""
    registry = butler.registry
    row = {"name": skymap, "hash": skymap.encode() * 4, "tract_max": 1, "patch_nx_max": count, "patch_ny_max": 1}
    registry.syncDimensionData("skymap", row)
    registry.syncDimensionData("tract", {"skymap": skymap, "id": 0, "region": region(150, 2, 1)})
    for number in range(count):
        place = {"cell_x": number, "cell_y": 0, "region": region(150 + number / 100, 2, 0.01)}
        registry.syncDimensionData("patch", {"skymap": skymap, "tract": 0, "id": number, **place})


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    from lsst.daf.butler import Butler, DatasetType

    import astroml_plugin as ap

    folder = tmp_path_factory.mktemp("lsst")

    def holes(image: Any, spread: Any, marks: Any) -> None:
        image[0, 50:60, 50:60], marks[1, 100:110, 200:210], spread[1, 300, :] = float("nan"), 2, 0

    change = {"tile_size": 640, "halo": 160, "bands": ("g", "r"), "change": holes}
    survey = universe.make_survey(str(folder / "survey.zarr"), shape=SHAPE, **change)  # type: ignore[arg-type]
    universe.make_objects(folder / "objects.parquet", count=60, shape=SHAPE)
    Butler.makeRepo(str(folder / "repo"))
    butler = Butler.from_config(str(folder / "repo"), writeable=True)
    add_patches(butler, "sim", len(survey))
    kinds = {"surveyTile": "SurveyTile", "objectTable": "ArrowTable"}
    for name, kind in kinds.items():
        butler.registry.registerDatasetType(DatasetType(name, DIMENSIONS, kind, universe=butler.dimensions))
    for run in ("tiles", "models"):
        butler.collections.register(run)
    table = pq.read_table(folder / "objects.parquet")
    for info in survey.iter_tiles():
        place = {"skymap": "sim", "tract": 0, "patch": info.index}
        butler.put(ap.Tile.from_survey(survey, info), "surveyTile", place, run="tiles")
        butler.put(table, "objectTable", place, run="tiles")
    for name in ("ellipticity", "segmentation"):
        kind = f"astromlBundle_{name}"
        butler.registry.registerDatasetType(DatasetType(kind, (), "AstromlBundle", universe=butler.dimensions))
        butler.put(ap.ModelBundle.load(name), kind, run="models")
    return Repository(str(folder / "repo"), survey, folder / "objects.parquet")
