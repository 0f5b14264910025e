"""The line from pixels to catalog: nothing lost, nothing doubled, whatever the tiling, cluster or accident."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from astroml_plugin.catalog import Catalog
from astroml_plugin.compute.cluster import connect
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.sources.survey import Survey
from tests import universe
from workflows.compact import compact
from workflows.infer import InferResult, dry_run, infer, plan, run_unit
from workflows.query import query
from workflows.verify import verify


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey, its objects and two bundles."""
    folder = tmp_path_factory.mktemp("sky")
    universe.make_survey(str(folder / "survey.zarr"))
    universe.make_objects(folder / "objects.parquet")
    universe.make_bundle(str(folder / "kind"))
    universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
    return folder


def run(sky: Path, out: Path, client: object, **changes: object) -> InferResult:
    settings = {"bundle": str(sky / "kind"), "objects": str(sky / "objects.parquet"), **changes}
    return infer(str(settings.pop("source", sky / "survey.zarr")), out=str(out), client=client, **settings)


def rows(out: Path) -> pa.Table:
    """The catalog without what may differ between tilings, in a fixed order."""
    table = query(str(out), "SELECT * EXCLUDE (tile) FROM catalog").to_arrow()
    return table.sort_by([("object_id", "ascending"), ("image", "ascending"), ("x", "ascending")])


def assert_same(one: pa.Table, two: pa.Table) -> None:
    """Equal row for row, float32 columns to rounding."""
    assert one.schema.names == two.schema.names
    assert one.num_rows == two.num_rows
    for name in one.schema.names:
        left, right = one[name].combine_chunks(), two[name].combine_chunks()
        if pa.types.is_float32(left.type):
            np.testing.assert_allclose(left.to_numpy(False), right.to_numpy(False), rtol=2e-5, atol=2e-6, err_msg=name)
        else:
            assert left.equals(right), name


def test_every_object_has_one_primary_row(sky: Path, tmp_path: Path, client: object) -> None:
    result = run(sky, tmp_path / "catalog", client)
    table = rows(tmp_path / "catalog")
    assert (result.units_failed, result.unplaced, result.rows) == (0, 0, 200)
    assert sorted(table["object_id"].to_pylist()) == list(range(10**17, 10**17 + 200))
    assert pc.all(table["primary"]).as_py()
    assert np.isfinite(table["p_star"].to_numpy()).all()
    given = pq.read_table(sky / "objects.parquet").sort_by("object_id")
    np.testing.assert_allclose(table["ra"].to_numpy(), given["ra"].to_numpy(), rtol=0, atol=1e-12)


def test_a_rerun_skips_what_is_done(sky: Path, tmp_path: Path, client: object) -> None:
    first = run(sky, tmp_path / "catalog", client)
    before = rows(tmp_path / "catalog")
    again = run(sky, tmp_path / "catalog", client)
    assert (again.units_done, again.units_skipped) == (0, first.units_done)
    assert_same(before, rows(tmp_path / "catalog"))


def test_a_lost_part_is_made_again(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client)
    before = rows(tmp_path / "catalog")
    next((tmp_path / "catalog" / "parts").rglob("*.parquet")).unlink()
    again = run(sky, tmp_path / "catalog", client)
    assert again.units_done == 1
    assert_same(before, rows(tmp_path / "catalog"))


@pytest.fixture(scope="module")
def measured(sky: Path, client: object) -> pa.Table:
    """Rows of both bundles on the survey."""
    run(sky, sky / "measured", client, bundle=[str(sky / "kind"), str(sky / "shape")])
    return rows(sky / "measured")


@pytest.mark.parametrize(("tile_size", "halo"), [(128, 16), (256, 40), (512, 16)])
def test_the_catalog_does_not_depend_on_the_tiling(
    sky: Path, measured: pa.Table, tmp_path: Path, client: object, tile_size: int, halo: int
) -> None:
    universe.make_survey(str(tmp_path / "other.zarr"), tile_size=tile_size, halo=halo)
    bundles = [str(sky / "kind"), str(sky / "shape")]
    run(sky, tmp_path / "b", client, bundle=bundles, source=tmp_path / "other.zarr")
    assert_same(measured, rows(tmp_path / "b"))


@pytest.mark.slow
def test_the_catalog_does_not_depend_on_the_cluster(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "threads", client)
    for workers in (1, 2):
        with connect("processes", workers=workers, threads=1) as processes:
            run(sky, tmp_path / f"processes{workers}", processes)
        assert_same(rows(tmp_path / "threads"), rows(tmp_path / f"processes{workers}"))
    with connect("local", threads=1) as single:
        run(sky, tmp_path / "single", single)
    assert_same(rows(tmp_path / "threads"), rows(tmp_path / "single"))


def test_several_bundles_prefix_their_columns(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client, bundle=[str(sky / "kind"), str(sky / "shape")])
    names = rows(tmp_path / "catalog").schema.names
    assert {"flags", "kind_label", "kind_flags", "shape_e1", "shape_position_angle", "shape_flags"} <= set(names)
    assert "e1" not in names


def test_objects_that_are_hard_are_flagged_or_reported_never_lost(sky: Path, tmp_path: Path, client: object) -> None:
    given = pa.table(
        {
            "object_id": [1, 2, 2, 4, 5, 6],
            "x": [0.0, 200.0, 210.0, -3.0, float("nan"), 399.4],
            "y": [0.0, 150.0, 150.0, 10.0, 10.0, 299.4],
        }
    )
    pq.write_table(given, tmp_path / "hard.parquet")
    result = run(sky, tmp_path / "catalog", client, objects=str(tmp_path / "hard.parquet"))
    table = rows(tmp_path / "catalog")
    assert (result.rows, result.unplaced) == (4, 2)
    flags = dict(zip(table["object_id"].to_pylist(), table["flags"].to_pylist()))
    assert flags[1] & ObjectFlag.EDGE
    assert flags[6] & ObjectFlag.EDGE
    assert flags[2] & ObjectFlag.DUPLICATE_ID
    assert not flags[1] & ObjectFlag.DUPLICATE_ID
    unplaced = Catalog.open(str(tmp_path / "catalog")).unplaced()
    assert sorted(unplaced["object_id"].to_pylist()) == [4, 5]
    assert int(pc.sum(table["primary"]).as_py()) + unplaced.num_rows == given.num_rows


def test_overlapping_images_keep_every_row_and_one_primary(sky: Path, tmp_path: Path, client: object) -> None:
    source = str(tmp_path / "two.zarr")
    universe.make_survey(source)
    universe.make_survey(source, name="second", dec=2.0 + 60 * universe.SCALE / 3600, seed=4)
    result = run(sky, tmp_path / "catalog", client, source=source)
    table = rows(tmp_path / "catalog")
    assert result.rows == table.num_rows > 200
    assert int(pc.sum(table["primary"]).as_py()) == 200
    keys = set(zip(table["object_id"].to_pylist(), table["image"].to_pylist()))
    assert len(keys) == table.num_rows


def test_an_image_without_pixels_there_does_not_count(sky: Path, tmp_path: Path, client: object) -> None:
    def holed(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image[:, 120:220, 100:300] = np.nan
        mask[:, 120:220, 100:300] = int(MaskBit.NO_DATA)

    whole, source = str(tmp_path / "whole.zarr"), str(tmp_path / "two.zarr")
    for url, change in ((whole, None), (source, holed)):
        universe.make_survey(url, change=change)
        universe.make_survey(url, name="second", dec=2.0 + 60 * universe.SCALE / 3600, seed=4)
        run(sky, tmp_path / Path(url).stem, client, source=url)
    table, before = rows(tmp_path / "two"), rows(tmp_path / "whole")
    assert int(pc.sum(table["primary"]).as_py()) == 200
    others = Counter(table["object_id"].to_pylist())
    blank = table.filter(pc.is_null(table["p_star"]))
    lost = blank.filter(pc.and_(blank["primary"], [others[one] > 1 for one in blank["object_id"].to_pylist()]))
    assert blank.num_rows > 20
    assert lost.num_rows == 0
    moved = table.filter(pc.xor(table["primary"], before["primary"]))
    assert moved.num_rows > 20
    second = moved.filter(pc.equal(moved["image"], "second"))
    assert pc.all(second["primary"]).as_py()
    assert not pc.any(pc.is_null(second["p_star"])).as_py()
    record = Catalog.open(str(tmp_path / "two")).runs()[-1]["primary"]
    assert record["objects_moved"] == second.num_rows
    compact(str(tmp_path / "two"))
    assert_same(rows(tmp_path / "two"), table)
    assert verify(str(tmp_path / "two")).is_whole


def test_added_tiles_extend_a_catalog(sky: Path, tmp_path: Path, client: object) -> None:
    source = str(tmp_path / "growing.zarr")
    universe.make_survey(source)
    first = run(sky, tmp_path / "catalog", client, source=source)
    universe.make_survey(source, name="far", dec=40.0, seed=4)
    second = run(sky, tmp_path / "catalog", client, source=source)
    assert second.units_skipped == first.units_done
    assert second.units_done == len(Survey.open(source)) - first.units_done
    assert rows(tmp_path / "catalog").num_rows == 200


def test_an_overlapping_image_added_later_replaces_stale_rows(sky: Path, tmp_path: Path, client: object) -> None:
    source = str(tmp_path / "growing.zarr")
    universe.make_survey(source)
    run(sky, tmp_path / "catalog", client, source=source)
    universe.make_survey(source, name="over", dec=2.0 + 30 * universe.SCALE / 3600, seed=4)
    run(sky, tmp_path / "catalog", client, source=source)
    run(sky, tmp_path / "fresh", client, source=source)
    assert_same(rows(tmp_path / "catalog"), rows(tmp_path / "fresh"))
    assert int(pc.sum(rows(tmp_path / "catalog")["primary"]).as_py()) == 200


def test_a_survey_without_wcs_takes_pixel_positions(sky: Path, tmp_path: Path, client: object) -> None:
    source = str(tmp_path / "plain.zarr")
    universe.make_survey(source, wcs=False)
    pq.write_table(pa.table({"object_id": [1, 2], "x": [50.0, 60.0], "y": [70.0, 80.0]}), tmp_path / "xy.parquet")
    run(sky, tmp_path / "catalog", client, source=source, objects=str(tmp_path / "xy.parquet"))
    table = rows(tmp_path / "catalog")
    assert table["ra"].null_count == 2
    assert table["x"].to_pylist() == [50.0, 60.0]


def test_stamps_are_measured_as_they_are(sky: Path, tmp_path: Path, client: object) -> None:
    source = universe.make_stamps(str(tmp_path / "stamps.zarr"))
    result = infer(source, bundle=str(sky / "kind"), out=str(tmp_path / "catalog"), client=client)
    table = rows(tmp_path / "catalog")
    assert (result.rows, table.num_rows, result.units_done) == (100, 100, 4)
    assert table["ra"].null_count == 100
    assert table["x"].null_count == 100


def test_another_bundle_or_source_is_refused_and_nothing_is_lost(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client)
    before = rows(tmp_path / "catalog")
    universe.make_bundle(str(tmp_path / "kind"), seed=9)
    with pytest.raises(InputError, match="choose another --out"):
        run(sky, tmp_path / "catalog", client, bundle=str(tmp_path / "kind"))
    universe.make_survey(str(tmp_path / "survey.zarr"))
    with pytest.raises(InputError, match="choose another --out"):
        run(sky, tmp_path / "catalog", client, source=tmp_path / "survey.zarr")
    assert_same(before, rows(tmp_path / "catalog"))


def test_a_flipped_byte_and_a_missing_shard_fail_their_unit_only(sky: Path, tmp_path: Path, client: object) -> None:
    source = tmp_path / "damaged.zarr"
    universe.make_survey(str(source))
    shards = sorted((source / "image" / "c").glob("*/0/0/0"))
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards[0].write_bytes(bytes(data))
    shards[1].unlink()
    result = run(sky, tmp_path / "catalog", client, source=source)
    failures = Catalog.open(str(tmp_path / "catalog")).failures()
    assert result.units_failed == failures.num_rows == 2
    assert result.units_done == len(shards) - 2
    universe.make_survey(str(tmp_path / "whole.zarr"))
    assert 0 < rows(tmp_path / "catalog").num_rows < 200


def test_planned_units_run_anywhere(sky: Path, tmp_path: Path, client: object) -> None:
    settings = {"bundle": str(sky / "kind"), "objects": str(sky / "objects.parquet")}
    units = list(plan(str(sky / "survey.zarr"), out=str(tmp_path / "catalog"), **settings))
    travelled = pickle.loads(pickle.dumps(units))
    assert max(len(pickle.dumps(unit)) for unit in units) < 20_000
    for unit in travelled:
        run_unit(unit)
    result = run(sky, tmp_path / "catalog", client)
    assert (result.units_done, result.units_skipped) == (0, len(units))
    assert rows(tmp_path / "catalog").num_rows == 200


def test_delayed_groups_fit_a_pipelines_own_graph(sky: Path, tmp_path: Path, client: object) -> None:
    import dask

    settings = {"bundle": str(sky / "kind"), "objects": str(sky / "objects.parquet"), "npartitions": 2}
    groups = list(plan(str(sky / "survey.zarr"), out=str(tmp_path / "catalog"), **settings))
    assert len(groups) == 2
    results = dask.compute(*groups, scheduler="threads")
    assert sum(result.part.rows for group in results for result in group) == 200


@pytest.mark.parametrize("first", [0, 1])
def test_shards_cover_all_units_once(sky: Path, tmp_path: Path, client: object, first: int) -> None:
    for number in range(first, first + 3):
        run(sky, tmp_path / "catalog", client, shard=(number, 3))
    result = run(sky, tmp_path / "catalog", client)
    assert result.units_done == 0
    assert rows(tmp_path / "catalog").num_rows == 200


def test_dry_run_counts_and_writes_nothing(sky: Path) -> None:
    planned = dry_run(str(sky / "survey.zarr"), bundle=str(sky / "kind"))
    assert planned.units == len(Survey.open(str(sky / "survey.zarr")))
    assert planned.bytes > 0
    assert planned.memory > 0


def test_the_run_record_says_where_the_rows_come_from(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client)
    record = json.loads((tmp_path / "catalog" / "run.json").read_text())
    assert record["state"] == "done"
    assert record["result"]["rows"] == 200
    assert len(record["bundles"][0]["sha256"]) == 64
    assert {"read", "forward", "encode", "write"} <= set(record["stages"])
    assert set(record["prepared_by"]) <= {"native", "torch"}
    assert sum(record["prepared_by"].values()) >= 1


def test_tables_in_memory_are_objects_too(sky: Path, tmp_path: Path, client: object) -> None:
    from astropy.table import Table

    table = Table.read(sky / "objects.parquet")
    assert run(sky, tmp_path / "astropy", client, objects=table).rows == 200
    assert run(sky, tmp_path / "pandas", client, objects=table.to_pandas()).rows == 200
    assert_same(rows(tmp_path / "astropy"), rows(tmp_path / "pandas"))
    assert run(sky, tmp_path / "index", client, objects=table.to_pandas().set_index("object_id")).rows == 200


def test_a_table_in_memory_keeps_its_units(sky: Path, tmp_path: Path, client: object) -> None:
    from astropy import units as u
    from astropy.table import QTable

    table = QTable.read(sky / "objects.parquet")
    for name in ("ra", "dec"):
        table[name] = (np.asarray(table[name]) * u.deg).to(u.rad)
    table["fluxes"] = np.zeros((len(table), 3))
    assert run(sky, tmp_path / "catalog", client, objects=table).rows == 200
    given = np.sort(table["ra"].to_value(u.deg))
    np.testing.assert_allclose(np.sort(rows(tmp_path / "catalog")["ra"].to_numpy()), given, rtol=0, atol=1e-11)


def test_wrong_settings_are_refused_before_anything_starts(sky: Path, tmp_path: Path, client: object) -> None:
    with pytest.raises(InputError, match="needs objects"):
        run(sky, tmp_path / "a", client, objects=None)
    with pytest.raises(InputError, match="halo of 40 px"):
        run(sky, tmp_path / "b", client, bundle=universe.make_bundle(str(tmp_path / "large"), size=80))
    with pytest.raises(InputError, match="band z is missing"):
        run(sky, tmp_path / "c", client, bundle=universe.make_bundle(str(tmp_path / "z"), bands=("z",)))
    with pytest.raises(InputError, match=r"halo of 6\d px for its 32 px stamps of 0.6 arcsec, 12\d px of the survey"):
        run(sky, tmp_path / "d", client, bundle=universe.make_bundle(str(tmp_path / "coarse"), pixel_scale=0.6))
    assert not any((tmp_path / name).exists() for name in "abcd")


def damaged(path: Path, how: str) -> None:
    """Change a file as disks and copying do."""
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    elif how == "zeros":
        data[:] = bytes(len(data))
    else:
        data[{"data": data.index(b"\x28\xb5\x2f\xfd") + 12, "footer": len(data) - 7}[how]] ^= 0x10  # in a zstd frame
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("merged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_units_whose_parts_cannot_be_read_are_done_again(
    sky: Path, tmp_path: Path, client: object, merged: bool
) -> None:
    out, source = tmp_path / "c", tmp_path / "six_tiles.zarr"
    universe.make_survey(str(source), tile_size=256)
    first = run(sky, out, client, source=source)
    assert first.units_done == 6
    wanted = rows(out)
    for number, how in enumerate(["truncated", "data", "footer"] if merged else ["empty", "data", "footer", "zeros"]):
        if merged:
            compact(str(out))
        whole = run(sky, out, client, source=source)
        assert (whole.damaged, whole.units_done, whole.units_skipped) == (0, 0, first.units_done)
        paths = sorted((out / "parts").rglob("*.parquet"))
        assert merged == (len(paths) == 1)
        damaged(paths[number % len(paths)], how)
        again = run(sky, out, client, source=source)
        assert (again.damaged, again.units_failed) == (1, 0), how
        assert again.units_done == (first.units_done if merged else 1)
        assert_same(rows(out), wanted)
        assert verify(str(out)).damages == ()
    assert len(list((out / "damaged").iterdir())) >= 1


def test_parts_that_changed_places_are_done_again(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "c"
    run(sky, out, client)
    wanted = rows(out)
    one, two = sorted((out / "parts").rglob("*.parquet"))[:2]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert run(sky, out, client).damaged == 2
    assert_same(rows(out), wanted)
