"""The tasks in a data butler give the rows of `infer`; each of their ways to be executed gives the same."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lsst.daf.butler import Butler
from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor

import astroml_plugin as ap
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.inference import resident
from astroml_plugin.lsst import measuring
from tests.lsst_middleware.conftest import Repository
from workflows.infer import infer
from workflows.query import query


def rows_of(butler: Butler, kind: str, count: int) -> pa.Table:
    """Rows of all patches, by id and position."""
    found = [butler.get(kind, skymap="sim", tract=0, patch=patch) for patch in range(count)]
    return pa.concat_tables(found).sort_by([("object_id", "ascending"), ("x", "ascending")])


def run(repository: Repository, task: Any, config: Any, output: str, label: str | None = None) -> Butler:
    """All quanta of one task, here."""
    butler = SimplePipelineExecutor.prep_butler(repository.path, inputs=["tiles", "models"], output=output)
    executor = SimplePipelineExecutor.from_task_class(task, config, label, butler=butler)
    executor.run(register_dataset_types=True)
    return butler


def same(ours: pa.Table, theirs: pa.Table) -> None:
    """Equal columns, bit for bit."""
    assert ours.num_rows == theirs.num_rows > 20
    assert set(ours.column_names) <= set(theirs.column_names)
    for name in ours.column_names:
        column = ours[name].combine_chunks()
        assert column.equals(theirs[name].combine_chunks().cast(column.type)), name


@pytest.fixture(scope="module")
def reference(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = str(tmp_path_factory.mktemp("reference") / "catalog")
    infer(repository.survey.url, bundle="ellipticity", band="r", out=out, objects=str(repository.objects))
    return query(out, "SELECT * FROM catalog").to_arrow().sort_by([("object_id", "ascending"), ("x", "ascending")])


def measure_config() -> Any:
    """Configuration that the tests share."""
    config = measuring.MeasureTileConfig()
    config.band = "r"
    return config


def test_rows_are_those_of_infer(repository: Repository, reference: pa.Table) -> None:
    resident.release()
    made, real = [], resident._load
    resident._load = lambda *given: made.append(given[0].name) or real(*given)  # type: ignore[func-returns-value]
    try:
        butler = run(repository, measuring.MeasureTileTask, measure_config(), "u/measure")
    finally:
        resident._load = real
    assert made == ["ellipticity"], "the network is loaded once for all quanta"
    ours = rows_of(butler, "astromlCatalog", len(repository.survey))
    same(ours, reference)
    assert len(set(ours["flags"].to_pylist())) > 3
    assert ours.schema.field("ra").metadata[b"unit"] == b"deg"
    told = butler.get("astromlMeasure_metadata", skymap="sim", tract=0, patch=0)["astromlMeasure"]
    assert told["sha256"] == ap.ModelBundle.load("ellipticity").sha256
    assert told["version"] == ap.__version__
    assert told["rows"] + told["unplaced"] == 60
    assert '"band": "r"' in told["options"]


def test_found_objects_and_label_maps(repository: Repository, tmp_path: Path) -> None:
    config = measuring.DetectTileConfig()
    config.bundles, config.band = ["segmentation", "ellipticity"], "r"
    butler = run(repository, measuring.DetectTileTask, config, "u/detect")
    out = str(tmp_path / "catalog")
    infer(repository.survey.url, bundle=["segmentation", "ellipticity"], band="r", out=out)
    theirs = query(out, "SELECT * FROM catalog").to_arrow().sort_by([("object_id", "ascending"), ("x", "ascending")])
    same(rows_of(butler, "astromlFound", len(repository.survey)), theirs)
    maps, seen = LabelMaps.open(out), 0
    for tile in repository.survey.iter_tiles():
        place = {"skymap": "sim", "tract": 0, "patch": tile.index}
        labels = butler.get("astromlLabels", place)
        assert labels.box == tile.outer
        np.testing.assert_array_equal(labels.labels, maps.read(tile.index))
        seen += int(labels.labels.any())
        x0, y0 = tile.inner.x0, tile.inner.y0
        part = butler.get("astromlLabels", place, parameters={"bbox": (x0, y0, x0 + 50, y0 + 40)})
        x, y = x0 - tile.outer.x0, y0 - tile.outer.y0
        np.testing.assert_array_equal(part.labels, labels.labels[y : y + 40, x : x + 50])
    assert seen > 1


def test_parts_of_tiles(repository: Repository) -> None:
    butler = Butler.from_config(repository.path, collections="tiles")
    place = {"skymap": "sim", "tract": 0, "patch": 1}
    whole = butler.get("surveyTile", place)
    outer = whole.info.outer
    box = (outer.x0 + 10, outer.y0 + 20, outer.x0 + 60, outer.y0 + 50)
    part = butler.get("surveyTile", place, parameters={"bbox": box})
    for name in ("image", "variance", "mask"):
        expected = getattr(whole, name)[:, 20:50, 10:60]
        np.testing.assert_array_equal(getattr(part, name), expected)
        np.testing.assert_array_equal(butler.get(f"surveyTile.{name}", place, parameters={"bbox": box}), expected)
    np.testing.assert_array_equal(butler.get("surveyTile.psf", place), whole.psf)
    assert butler.get("surveyTile.bands", place) == ["g", "r"]
    wcs = butler.get("surveyTile.wcs", place, parameters={"bbox": box})
    np.testing.assert_allclose(wcs.to_sky(0, 0), whole.wcs.to_sky(10, 20), rtol=0, atol=1e-12)
    handle = butler.getDeferred("surveyTile", place)
    assert handle.get(component="image", parameters={"bbox": box}).shape == (2, 30, 50)
    with pytest.raises(Exception, match="does not lie in tile"):
        butler.get("surveyTile", place, parameters={"bbox": (0, 0, 10_000, 5)})


def test_wrong_inputs_are_one_sentence(repository: Repository) -> None:
    config = measure_config()
    config.pins = {"ellipticity": "0" * 12}
    with pytest.raises(ap.InputError, match="was asked for: give that bundle"):
        run(repository, measuring.MeasureTileTask, config, "u/pinned")
    config = measure_config()
    config.precision = "float8"
    with pytest.raises(Exception, match="float8"):
        config.validate()
    butler = Butler.from_config(repository.path, collections="tiles")
    task = measuring.MeasureTileTask(config=measure_config())
    tile = butler.get("surveyTile", skymap="sim", tract=0, patch=0)
    with pytest.raises(ap.InputError, match="has no position columns"):
        task.run(tile, pa.table({"object_id": [1]}), [ap.ModelBundle.load("ellipticity")])


def test_quanta_are_dask_futures(repository: Repository, reference: pa.Table, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    from astroml_plugin.lsst.dask import submit_quanta

    graph, repo, out = str(tmp_path / "graph.qg"), repository.path, "u/dask"
    pipeline = "resource://astroml_plugin.lsst/pipelines/measure.yaml"
    command(
        *("pipetask", "qgraph", "-b", repo, "-i", "tiles,models", "-o", out, "-p", pipeline, "--save-qgraph", graph),
        *("-c", "astromlMeasure:band=r", "-d", "skymap='sim'"),
    )
    command("pipetask", "pre-exec-init-qbb", repo, graph)
    labels: set[str] = set()
    with (
        contextlib.suppress(TimeoutError),  # Dask gives a worker of a busy machine 5 s to end
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        labels = set(client.gather(list(submit_quanta(client, graph, repo).values())))
    assert labels == {"astromlMeasure"}
    command("butler", "transfer-from-graph", graph, repo, "--register-dataset-types", "--update-output-chain")
    butler = Butler.from_config(repo, collections=out)
    same(rows_of(butler, "astromlCatalog", len(repository.survey)), reference)


def command(*words: str) -> None:
    """Run a command of the environment; its words where it fails."""
    program = str(Path(sys.executable).with_name(words[0]))
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
