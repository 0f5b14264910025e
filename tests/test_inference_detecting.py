"""Detection in a unit: bad pixels, flags, very many objects, and the device path."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.compute import device as dev
from astroml_plugin.compute.cluster import connect
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.inference import detecting, forward, upload
from astroml_plugin.inference.detecting import checked, owned
from astroml_plugin.inference.reading import Rows, TileWork
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.survey import Survey
from astroml_plugin.tasks.detection import Detections
from tests import spotter, universe
from tests.detection import TILINGS, assert_same, rows, run
from tests.test_inference_forward import Cramped


def altered(folder: Path, change: Any, **survey: Any) -> str:
    """A survey whose parent image, variance and mask went through `change` before tiles were cut of it."""
    source = str(folder / "altered.zarr")
    universe.make_survey(source, change=change, **survey)
    return source


def test_bad_pixels_cost_no_unit(spotted: Path, tmp_path: Path, client: object) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image[:, 40:44] = np.nan  # a stripe
        mask[:, 130:260, 120:270] = 2  # all of an inner box and its halo
        mask[:, 270:280, 300:310] = 4
        variance[:, :60, 300:] = 0

    results = {}
    for number, (tile_size, halo) in enumerate(TILINGS[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = altered(folder, change, tile_size=tile_size, halo=halo)
        assert run(spotted, folder / "catalog", client, source=source).units_failed == 0
        results[number] = rows(folder / "catalog")
        everything = read_labels(str(folder / "catalog")).labels
        assert not everything[150:240, 140:250].any()
    assert_same(results[0], results[1])


def test_a_tile_without_a_usable_pixel_is_an_empty_unit(spotted: Path, tmp_path: Path, client: object) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        mask[:, :180, :180] = 2

    result = run(spotted, tmp_path / "catalog", client, source=altered(tmp_path, change))
    assert result.units_failed == 0
    done = Catalog.open(str(tmp_path / "catalog")).current()
    assert dict(zip(done["unit"].to_pylist(), done["rows"].to_pylist()))["field_r0_c0"] == 0
    assert not LabelMaps.open(str(tmp_path / "catalog")).read(0).any()


def test_surveys_without_variance_or_bands_are_searched(spotted: Path, tmp_path: Path, client: object) -> None:
    bands = ("g", "r")
    spots = spotter.make_bundle(str(tmp_path / "anyspots"), ("any",), any_band=True)

    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image[0] = np.nan
        mask[0] = 1

    source = str(tmp_path / "bands.zarr")
    universe.make_survey(source, bands=bands, name="both")
    universe.make_survey(source, bands=bands, name="red", change=change, dec=40.0)
    result = run(spotted, tmp_path / "catalog", client, source=source, bundle=spots)
    assert result.units_failed == 0
    table = rows(tmp_path / "catalog")
    assert {"flux_g", "flux_r"} <= set(table.schema.names)
    counts = {name: table.filter(pc.equal(table["image"], name)).num_rows for name in ("both", "red")}
    assert min(counts.values()) > 40
    one = run(spotted, tmp_path / "one", client, source=source, bundle=spots, band="r")
    assert one.rows > 80
    assert "flux_g" not in rows(tmp_path / "one").schema.names
    plain = str(tmp_path / "plain.zarr")
    universe.make_survey(plain, variance=False)
    run(spotted, tmp_path / "plain", client, source=plain)
    flags = rows(tmp_path / "plain")["flags"].to_numpy()
    assert len(flags) > 40
    assert ((flags & ObjectFlag.NO_VARIANCE) > 0).all()


def test_edges_and_what_is_larger_than_the_halo_are_flagged(
    spotted: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        y, x = np.mgrid[:300, :400]
        image[:] = 30 * np.exp(-((x - 200) ** 2 + (y - 150) ** 2) / (2 * 15.0**2))
        image += 100 * np.exp(-((x - 2) ** 2 + (y - 60) ** 2) / 18) + 100 * np.exp(
            -((x - 320) ** 2 + (y - 60) ** 2) / 18
        )

    monkeypatch.setattr(spotter, "RADIUS", 100)
    run(spotted, tmp_path / "catalog", client, source=altered(tmp_path, change))
    table = rows(tmp_path / "catalog").to_pylist()
    flags = {(round(row["x"], -1), round(row["y"], -1)): row["flags"] for row in table if row["area"] > 30}
    border, alone = (next(bits for (x, y), bits in flags.items() if abs(x - at) < 20 and y == 60) for at in (0, 320))
    assert border & ObjectFlag.EDGE
    assert not border & ObjectFlag.TRUNCATED
    assert not alone & (ObjectFlag.EDGE | ObjectFlag.TRUNCATED)
    huge = max(table, key=lambda row: row["area"])
    assert huge["area"] > 2000
    assert huge["flags"] & ObjectFlag.TRUNCATED


def test_two_objects_with_one_peak_are_flagged(
    spotted: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = detecting.object_ids

    def same(info: Any, wcs: Any, peak_x: np.ndarray, peak_y: np.ndarray) -> np.ndarray:
        ids = real(info, wcs, peak_x, peak_y)
        if info.name == "field_r0_c0":
            ids[peak_x < 90] = 7
        return ids

    monkeypatch.setattr(detecting, "object_ids", same)
    run(spotted, tmp_path / "catalog", client)
    table = rows(tmp_path / "catalog")
    doubled = table.filter(pc.equal(table["object_id"], 7))
    assert doubled.num_rows > 1
    assert ((doubled["flags"].to_numpy() & ObjectFlag.DUPLICATE_ID) > 0).all()
    others = table.filter(pc.not_equal(table["object_id"], 7))
    assert not (others["flags"].to_numpy() & ObjectFlag.DUPLICATE_ID).any()


def test_a_failing_unit_leaves_the_others(
    spotted: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = spotter.SpotTask.detect

    def careless(self: spotter.SpotTask, maps: np.ndarray, field: Any) -> Any:
        found = real(self, maps, field)
        if field.origin == (0, 0):
            found.labels[:] = np.roll(found.labels, 30, 0)
        return found

    monkeypatch.setattr(spotter.SpotTask, "detect", careless)
    result = run(spotted, tmp_path / "catalog", client)
    assert result.units_failed == 1
    reason = Catalog.open(str(tmp_path / "catalog")).failures()["reason"][0].as_py()
    assert "lie outside their labels" in reason
    monkeypatch.undo()
    assert run(spotted, tmp_path / "catalog", client).units_done == 1
    assert_same(rows(tmp_path / "catalog"), rows(spotted / "catalog0"))


def test_windows_overlapped_with_copies_change_no_label(
    spotted: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dev.Copier("cpu", 1000)
    for module in (forward, upload):
        monkeypatch.setattr(module, "overlaps", lambda device: True)
    monkeypatch.setattr(upload, "copier", lambda device: small)
    monkeypatch.setattr(
        forward, "pipelined", lambda *given, overlap, **more: dev.pipelined(*given, overlap=True, **more)
    )
    assert run(spotted, tmp_path / "catalog", client, batch=2).units_failed == 0
    assert small.bytes > 0
    assert_same(rows(tmp_path / "catalog"), rows(spotted / "catalog0"))
    pictures = [read_labels(str(out)).object_ids() for out in (tmp_path / "catalog", spotted / "catalog0")]
    np.testing.assert_array_equal(*pictures)


def test_without_memory_fewer_windows_go_through_at_once(
    spotted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped, told = Cramped(3), []
    cramped.install(monkeypatch)
    monkeypatch.setattr(forward.warnings, "warn", lambda text, *_, **__: told.append(text))
    with connect("local", threads=1) as single:
        assert run(spotted, tmp_path / "catalog", single).units_failed == 0
    assert max(cramped.batches) == 2
    assert told[0] == "the device has no memory for 72 windows at once: 36 from now on"
    assert_same(rows(tmp_path / "catalog"), rows(spotted / "catalog0"))


def test_a_compiled_network_takes_windows_from_one_thread(
    spotted: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def compiled(network: torch.nn.Module, dynamic: bool) -> Any:
        def call(*inputs: torch.Tensor) -> torch.Tensor:
            threads.add(threading.get_ident())
            return network(*inputs)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    run(spotted, tmp_path / "catalog", client, compiling="always")
    assert len(threads) == 1
    assert_same(rows(tmp_path / "catalog"), rows(spotted / "catalog0"))


def test_the_memory_of_windows_is_foreseen_from_what_prepare_makes(spotted: Path) -> None:
    assert forward._window_shapes(spotter.SpotTask.from_settings({"bands": ["g", "r"]})) == [(2, 64, 64)]


def test_units_with_very_many_objects_stay_small(spotted: Path) -> None:
    """10^5 objects on one tile: what the engine adds to the task's own arrays is bounded by the tile, not by them."""
    side, step = 1600, 5
    peak_y, peak_x = (axis.ravel() for axis in np.mgrid[2:side:step, 2:side:step])
    count, box = len(peak_x), Box(0, 0, side, side)
    numbers = np.arange(1, count + 1, dtype=np.int32).reshape(side // step, -1)
    labels = np.kron(numbers, np.ones((step, step), np.int32))
    columns = {
        **{"area": np.full(count, 25), "kind": np.full(count, "blob", object)},
        **{"parent": np.arange(count), "flux_r": np.zeros(count)},
    }
    found = Detections(labels, peak_x + 0.1, peak_y + 0.1, peak_x, peak_y, columns, np.zeros(count, np.int32))
    info = next(Survey.open(str(spotted / "survey2.zarr")).iter_tiles())
    info = replace(info, outer=box, inner=Box(32, 32, side - 32, side - 32), image_shape=(side, side))
    task = spotter.SpotTask.from_settings({"bands": ["r"]})
    work = TileWork(None, info, ("r",), Rows({}, np.zeros(0, bool)), np.zeros((0, 2, 2)), 0.2)
    tracemalloc.start()
    try:
        _, kept = owned(work, task, checked(found, task), box)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(kept.flags) > 90_000
    assert kept.labels.max() == len(kept.flags)
    assert peak < 12 * labels.nbytes
    assert not kept.flags.any()
