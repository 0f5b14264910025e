"""Units within a pipeline's own Dask graph: the rows of a frame, of tiles mapped and of `infer` are equal; preload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import astroml_plugin as ap
from astroml_plugin.core import version
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import preloading, resident, run_unit, telling
from astroml_plugin.sources.survey import Survey
from tests import spotter, universe
from workflows.infer import infer, plan
from workflows.query import query

KINDS = {"given": ["kind", "shape"], "found": ["spots", "kind"]}


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sky")
    with spotter.small_sky(folder):
        universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
        yield folder


def on_tile(survey: Survey, info: ap.TileInfo, bundles: list[str], objects: Any) -> pa.Table:
    """One tile of a graph of one's own."""
    return ap.measure(ap.Tile.from_survey(survey, info), objects, bundles, outside="leave").table


def rows(table: pa.Table | pd.DataFrame, names: list[str]) -> pd.DataFrame:
    frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True) if isinstance(table, pa.Table) else table
    return frame[names].sort_values("object_id").reset_index(drop=True)


@pytest.mark.parametrize("kind", list(KINDS))
def test_all_ways_to_measure_a_sky_give_equal_rows(sky: Path, tmp_path: Path, client: Client, kind: str) -> None:
    bundles, source = [str(sky / name) for name in KINDS[kind]], str(sky / "survey.zarr")
    objects = pq.read_table(sky / "objects.parquet") if kind == "given" else None
    infer(source, bundle=bundles, out=str(tmp_path / "run"), objects=objects, client=client)
    for unit in plan(source, bundle=bundles, out=str(tmp_path / "own"), objects=objects):
        run_unit(unit)
    infer(source, bundle=bundles, out=str(tmp_path / "own"), objects=objects, client=client)
    frame = ap.measure_frame(source, bundles, objects=objects)
    assert frame.npartitions == (len(Survey.open(source)) if kind == "found" else frame.npartitions) > 1
    mapped = dask.compute(*Survey.open(source).map_tiles(on_tile, bundles, objects))
    written = query(str(tmp_path / "run"), "SELECT * FROM catalog").to_arrow()
    ways = {
        "own graph": query(str(tmp_path / "own"), "SELECT * FROM catalog").to_arrow(),
        "frame": frame.compute(),
        "mapped": pa.concat_tables(mapped),
    }
    names = [name for name in written.column_names if name in frame.columns]
    assert {"flags", "object_id", "ra"} < set(names)
    for way, table in ways.items():
        pd.testing.assert_frame_equal(
            rows(table, names), rows(written, names), check_exact=True, check_dtype=False, obj=way
        )
    events = [event for _, event in client.get_events(telling.TOPIC)]
    assert {"unit", "objects", "objects_per_second", "seconds"} <= set(events[-1])
    assert telling.metrics()["objects"]._value.get() >= 3 * len(written)  # type: ignore[index]


def test_a_frame_joins_other_work_and_keeps_its_promise(sky: Path, client: Client) -> None:
    source, bundle = str(sky / "survey.zarr"), str(sky / "kind")
    objects = {"object_id": np.arange(2), "x": np.array([50.0, 390]), "y": np.array([50.0, 290])}
    frame = ap.measure_frame(Survey.open(source), ap.ModelBundle.load(bundle), objects=objects)
    assert frame.npartitions == 2
    assert list(frame.columns) == ap.declared_schema(bundle).names
    computed = frame[frame["x"] > 100].assign(twice=lambda part: part["p_star"] * 2).compute()
    assert computed["object_id"].tolist() == [1]
    assert dict(frame.dtypes) == dict(frame.compute().dtypes)
    with pytest.raises(InputError, match="in memory has no rows"):
        ap.measure_frame(source, bundle, objects={name: values[:0] for name, values in objects.items()})
    with pytest.warns(UserWarning, match="2 objects lie outside every tile"):
        none = ap.measure_frame(source, bundle, objects={**objects, "x": np.array([-99.0, 999])}, outside="leave")
    assert (len(none), list(none.columns)) == (0, list(frame.columns))
    with pytest.raises(InputError, match="1 objects lie outside every tile"):
        ap.measure_frame(source, bundle, objects={**objects, "x": np.array([50.0, 999])})
    with pytest.warns(UserWarning, match="are left out"):
        left = ap.measure_frame(source, bundle, objects={**objects, "x": np.array([50.0, 999])}, outside="leave")
    assert len(left) == 1
    with pytest.raises(InputError, match="in this process only"):
        ap.measure_frame(source, ap.ModelBundle.from_bytes(ap.ModelBundle.load(bundle).to_zip()), objects=objects)
    with pytest.raises(InputError, match="needs objects to measure"):
        ap.measure_frame(source, bundle)


def test_a_partition_has_the_measurement_of_the_image_that_shows_the_object(
    sky: Path, tmp_path: Path, client: Client
) -> None:
    def hole(image: np.ndarray, spread: np.ndarray, marks: np.ndarray) -> None:
        image[:, 60:240, 100:300] = np.nan

    source, bundles = str(tmp_path / "survey.zarr"), [str(sky / name) for name in KINDS["given"]]
    universe.make_survey(source, change=hole)
    universe.make_survey(source, name="other", ra=150.001, seed=4)
    objects = pq.read_table(sky / "objects.parquet").select(["object_id", "ra", "dec"]).to_pandas()
    objects.loc[1, "object_id"] = objects.loc[0, "object_id"]  # elsewhere on the sky
    ran = infer(source, bundle=bundles, out=str(tmp_path / "run"), objects=objects, client=client)
    wanted = query(ran.catalog, 'SELECT * FROM catalog WHERE "primary" ORDER BY object_id, dec').to_arrow()
    moved = wanted.filter(pa.array(np.asarray(wanted["image"]) == "other"))
    assert 0 < len(moved) < len(wanted)
    assert (np.asarray(wanted["flags"]) & ap.ObjectFlag.DUPLICATE_ID != 0).sum() == 2
    found = ap.measure_partition(objects, source, bundles).sort_values(["object_id", "dec"])
    new = [name for name in found.columns if name not in objects.columns]
    assert {"flags", "shape_e1", "kind_flags"} <= set(new)
    frame = wanted.select(new).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    pd.testing.assert_frame_equal(found[new].reset_index(drop=True), frame, check_exact=True, check_dtype=False)


class Left:
    """A worker as a preload sees it, and whether it left."""

    def __init__(self, code: list[str] | None, workers: int) -> None:
        self.code, self.workers, self.closed = code, workers, ""
        self.scheduler, self.loop, self.address = self, self, "tcp://here"
        self.state = type("State", (), {"nthreads": 1})

    async def identity(self) -> dict[str, Any]:
        return {"workers": dict.fromkeys(range(self.workers))}

    async def get_metadata(self, **_: Any) -> list[str] | None:
        return self.code

    async def set_metadata(self, keys: list[str], value: list[str]) -> None:
        self.code = value

    def add_callback(self, close: Any, nanny: bool, reason: str) -> None:
        self.closed = reason

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("code", "workers", "bundles", "leaves"),
    [
        (None, 0, [], ""),
        (["0.0.1", "other"], 0, [], ""),
        (["0.0.1", "other"], 2, [], r"run astroml_plugin 0.0.1 \(code other\), this one has"),
        (list(version.running()), 2, ["nothing"], "no bundle at nothing"),
    ],
)
def test_a_worker_that_cannot_be_ready_leaves(
    code: list[str] | None, workers: int, bundles: list[str], leaves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preloading, "take_share", lambda *_: None)
    worker = Left(code, workers)
    if leaves:
        with pytest.raises(InputError, match=leaves):
            asyncio.run(preloading.ready_worker(worker, bundles, "cpu"))
        assert worker.closed
    else:
        asyncio.run(preloading.ready_worker(worker, bundles, "cpu"))
        assert (worker.closed, worker.code) == ("", list(version.running()))
    preloading.forget_worker(worker)


def models_here() -> list[str]:
    return sorted(model.bundle.name for model in resident._models.values())


@pytest.mark.slow
def test_preloaded_workers_have_their_models_before_the_first_unit(sky: Path, tmp_path: Path) -> None:
    """Also one that joins late, and also after a run that ended; its share is that of two workers of this host."""
    argv = ["--bundle", str(sky / "kind"), "--device", "cpu", "--workers-per-host", "2"]
    settings = {"distributed.worker.preload": ["astroml_plugin.preload"], "distributed.worker.preload-argv": [argv]}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        assert list(client.run(models_here).values()) == [["kind"]]
        cluster.scale(2)
        client.wait_for_workers(2, timeout=120)
        assert list(client.run(models_here).values()) == [["kind"]] * 2
        infer(
            str(sky / "survey.zarr"),
            bundle=str(sky / "kind"),
            objects=str(sky / "objects.parquet"),
            out=str(tmp_path / "c"),
            client=client,
            device="cpu",
        )
        assert list(client.run(models_here).values()) == [["kind"]] * 2
        assert set(client.run(lambda: resident._share.lanes).values()) == {1}
