"""The journey of a unit, station by station, each called alone: read, upload, detect, measure, encode, write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.compute.cluster import connect
from astroml_plugin.compute.device import Copier
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import BundleRef, Unit, detecting, forward, models, resident, upload
from astroml_plugin.inference import unit as unit_station
from astroml_plugin.inference.detecting import detect
from astroml_plugin.inference.measuring import measure_work
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import RunModel, models_of
from astroml_plugin.inference.reading import BlockWork, Rows, TileWork, read_unit
from astroml_plugin.inference.unit import encode, run_unit, write
from astroml_plugin.inference.upload import DeviceUpload
from astroml_plugin.training.bundle import ModelBundle
from tests import spotter
from workflows.infer import infer, plan


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sky")
    with spotter.small_sky(folder):
        yield folder


def first_unit(sky: Path, out: Path, *bundles: str, objects: bool = True) -> Unit:
    table = str(sky / "objects.parquet") if objects else None
    urls = [str(sky / name) for name in bundles]
    return next(plan(str(sky / "survey.zarr"), bundle=urls, out=str(out), objects=table, device="cpu"))


def run_model(url: str) -> RunModel:
    """A model from a bundle alone, as a pipeline that holds pixels makes it."""
    bundle = ModelBundle.load(url)
    network = bundle.network(fused=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return RunModel(BundleRef(bundle.name, url, bundle.sha256), bundle.task(), network, torch.device("cpu"))


def test_reading_gives_pixels_and_objects_and_loads_no_model(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = first_unit(sky, tmp_path / "c", "kind")
    monkeypatch.setattr(resident, "_load", lambda *_: pytest.fail("a model was loaded"))
    work = read_unit(unit)
    assert isinstance(work, TileWork)
    assert (work.bands, unit.job.stamp_size) == (("r",), 32)
    assert len(work) == unit.rows
    assert work.nbytes > 0


def test_the_tile_goes_to_the_device_once_for_all_bundles(sky: Path, tmp_path: Path) -> None:
    work, meter = read_unit(first_unit(sky, tmp_path / "c", "kind")), Meter()
    with DeviceUpload(work, "cpu", meter) as sent:
        pixels = sent.pixels()
        assert sent.pixels() is pixels
        assert pixels.bands == ("r",)
        sent.drop()
        assert sent.pixels() is not pixels
    assert set(meter.seconds) == {"copy"}


def test_detection_alone_gives_the_owned_objects_and_their_map(sky: Path, tmp_path: Path) -> None:
    unit = first_unit(sky, tmp_path / "c", "spots", objects=False)
    work, meter = read_unit(unit), Meter()
    assert isinstance(work, TileWork)
    (model,) = models_of(unit.job)
    with DeviceUpload(work, "cpu", meter) as sent:
        found, detections = detect(work, model, sent, lambda do: do(), meter)
    assert len(found) == len(detections.flags) > 0
    np.testing.assert_array_equal(np.unique(detections.labels), np.arange(len(found) + 1))
    x, y = found.rows.table["x"], found.rows.table["y"]
    at_centre = detections.labels[
        np.round(y - found.info.outer.y0).astype(int), np.round(x - found.info.outer.x0).astype(int)
    ]
    assert (at_centre == detections.label_ids.to_numpy()).mean() > 0.9


@pytest.mark.parametrize("bundles", [["spots"], ["spots", "kind"]])
def test_a_tile_has_left_the_device_when_its_objects_are_looked_for(
    sky: Path, tmp_path: Path, bundles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that must be reached by copies, as a GPU: its place is free for another tile meanwhile."""
    models = [run_model(str(sky / name)) for name in bundles]
    work = read_unit(first_unit(sky, tmp_path / "c", *bundles, objects=False))
    plain = measure_work(work, models)
    free, real = [], detecting.on_search_thread

    def searched(device: str, search: Any) -> Any:
        free.append(upload._tiles._value)
        return real("cpu", search)

    for module in (forward, upload):
        monkeypatch.setattr(module, "overlaps", lambda device: True)
    monkeypatch.setattr(upload, "copier", lambda device: Copier("cpu", 5000))
    monkeypatch.setattr(detecting, "on_search_thread", searched)
    assert upload._tiles._value == upload.TILES_AT_ONCE
    copied = measure_work(work, models)
    assert free == [upload.TILES_AT_ONCE]
    assert upload._tiles._value == upload.TILES_AT_ONCE
    assert copied.table.equals(plain.table)
    np.testing.assert_array_equal(copied.labels, plain.labels)


def test_beside_a_gpu_all_cores_look_for_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    resident.release()
    monkeypatch.setattr(resident, "_share", resident.share_of(1, 1))
    count = resident.cores()
    meet = threading.Barrier(count)
    with ThreadPoolExecutor(count) as units:
        waits = [units.submit(resident.on_search_thread, "cuda", lambda: meet.wait(20)) for _ in range(count)]
        assert sorted(wait.result() for wait in waits) == list(range(count))
    assert resident.on_search_thread("cuda", torch.get_num_threads) == 1
    resident.release()


@pytest.mark.parametrize(("bundles", "objects"), [(["kind"], True), (["spots"], False), (["spots", "kind"], False)])
def test_the_middle_called_alone_gives_the_rows_of_the_catalog(
    sky: Path, tmp_path: Path, bundles: list[str], objects: bool
) -> None:
    """Pixels in memory and models from bundles: no store, no catalog and no client is touched."""
    unit = first_unit(sky, tmp_path / "c", *bundles, objects=objects)
    run_unit(unit)
    (part,) = (tmp_path / "c" / "parts").rglob("*.parquet")
    written = pq.read_table(part)
    work = read_unit(unit)
    measured = measure_work(work, [run_model(str(sky / name)) for name in bundles])
    assert measured.table.num_rows == written.num_rows > 0
    rows = measured.table.sort_by("object_id")
    for name in measured.table.column_names:
        theirs = written.sort_by("object_id")[name].combine_chunks()
        assert rows[name].combine_chunks().cast(theirs.type).equals(theirs), name
    if objects:
        assert measured.labels is None
    else:
        np.testing.assert_array_equal(measured.labels, LabelMaps.open(str(tmp_path / "c")).read(unit.index))


def test_the_middle_measures_stamps_in_memory(sky: Path) -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, (5, 1, 32, 32)).astype(np.float32)
    table = {"object_id": np.arange(5), "image": "mine", "tile": "none", "primary": np.ones(5, bool)}
    table |= {name: np.full(5, np.nan) for name in ("x", "y", "ra", "dec")}
    work = BlockWork(image, np.ones_like(image), None, ("r",), Rows(table, np.array([0, 0, 1, 0, 0], bool)), 0.2)
    measured = measure_work(work, [run_model(str(sky / "kind"))])
    assert measured.table.column_names[-3:] == ["p_star", "p_galaxy", "label"]
    assert measured.table["x"].null_count == 5
    assert (measured.table["flags"].to_numpy() & 64 > 0).tolist() == [False, False, True, False, False]


def test_each_model_is_made_once_a_unit(sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], models._model
    monkeypatch.setattr(models, "_model", lambda job, ref, loaded: made.append(ref.name) or real(job, ref, loaded))
    run_unit(first_unit(sky, tmp_path / "c", "spots", "kind", objects=False))
    assert made == ["spots", "kind"]


def test_the_next_unit_is_read_while_one_thread_computes(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hides the latency of an object store: lanes for reading beyond the compute threads."""
    begun, another = [], threading.Event()
    read, compute = unit_station.read_unit, unit_station.measure_work

    def reading(unit: Unit, objects: pa.Table | None = None) -> Any:
        begun.append(unit.name)
        if len(begun) > 1:
            another.set()
        return read(unit, objects)

    def computing(*arguments: Any) -> Any:
        assert another.wait(60)
        return compute(*arguments)

    monkeypatch.setattr(unit_station, "read_unit", reading)
    monkeypatch.setattr(unit_station, "measure_work", computing)
    with connect("local", threads=1) as client:
        done = infer(str(sky / "survey.zarr"), bundle=str(sky / "spots"), out=str(tmp_path / "c"), client=client)
    assert (done.units_failed, len(begun)) == (0, done.units_done)
    assert done.units_done > 1


def test_encoding_and_writing_alone(sky: Path, tmp_path: Path) -> None:
    unit = first_unit(sky, tmp_path / "c", "spots", objects=False)
    measured, catalog, meter = (
        measure_work(read_unit(unit), models_of(unit.job)),
        Catalog.open(str(tmp_path / "c")),
        Meter(),
    )
    part, data = encode(measured.table, unit, catalog, meter)
    assert part.rows == measured.table.num_rows
    assert pq.read_table(pa.BufferReader(data)).num_rows == part.rows
    assert not list((tmp_path / "c" / "parts").rglob("*.parquet"))
    maps = LabelMaps.open(str(tmp_path / "c"))
    write(unit.index, part, data, measured.labels, catalog, maps, meter)
    (file,) = (tmp_path / "c" / "parts").rglob("*.parquet")
    assert file.read_bytes() == data
    np.testing.assert_array_equal(maps.read(unit.index), measured.labels)
    assert meter.bytes["write"] == len(data)


def test_a_bundle_that_changed_since_the_plan_fails_the_unit(sky: Path, tmp_path: Path) -> None:
    unit = first_unit(sky, tmp_path / "c", "kind")
    changed = replace(unit.job.bundles[0], sha256="0" * 64)
    with pytest.raises(InputError, match="changed since the run was planned"):
        run_unit(replace(unit, job=replace(unit.job, bundles=(changed,))))


def test_rows_of_units_run_alone_are_those_of_a_run(sky: Path, tmp_path: Path) -> None:
    urls = [str(sky / "spots"), str(sky / "kind")]
    for unit in plan(str(sky / "survey.zarr"), bundle=urls, out=str(tmp_path / "alone"), device="cpu"):
        run_unit(unit)
    with connect("local", threads=1) as client:
        infer(str(sky / "survey.zarr"), bundle=urls, out=str(tmp_path / "run"), client=client)
    parts = [sorted((tmp_path / name / "parts").rglob("*.parquet")) for name in ("alone", "run")]
    assert [path.name for path in parts[0]] == [path.name for path in parts[1]]
    for ours, theirs in zip(*parts, strict=True):
        assert pq.read_table(ours).equals(pq.read_table(theirs))
