"""The catalog on disk: schema, parts, listing, manifest, runs, supersession, failures."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import Table
from catalogs import COLUMNS, DECLARED, IDENTITY, small_catalog, unit_rows

from astroml_plugin.catalog import HEALPIX, Catalog, Column, columns_of, compact, part_path, schema
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.superseded import drop_superseded
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import OBJECT_FLAGS

DIGEST = "a" * 16
OTHER = "b" * 16


def digests(catalog: Catalog, **options: bool) -> dict[str, str]:
    """Unit -> digest of the view."""
    table = catalog.current(**options)
    assert len(set(table["unit"].to_pylist())) == table.num_rows
    return dict(zip(table["unit"].to_pylist(), table["digest"].to_pylist(), strict=True))


def rows_of(catalog: Catalog) -> list[tuple[str, int]]:
    """(tile, object) of every row that a query sees."""
    table = query(catalog.url, "SELECT tile, object_id FROM catalog").to_arrow()
    return sorted(zip(table["tile"].to_pylist(), table["object_id"].to_pylist(), strict=True))


def expected_rows(**units: pa.Table) -> list[tuple[str, int]]:
    return sorted((unit, i) for unit, table in units.items() for i in table["object_id"].to_pylist())


# Schema


def test_schema_describes_itself_to_arrow() -> None:
    assert DECLARED.names[0] == "object_id"
    assert DECLARED.names[-1] == HEALPIX
    assert DECLARED.field("flux").metadata == {b"unit": b"nJy", b"ucd": b"phot.flux", b"description": b"Flux"}
    assert json.loads(DECLARED.metadata[b"astroml_plugin.flags"]) == OBJECT_FLAGS
    assert DECLARED.field("label").type == pa.large_string()
    assert columns_of(DECLARED)[9:12] == COLUMNS
    with pytest.raises(InputError, match="declared twice"):
        schema([COLUMNS[0], COLUMNS[0]])
    with pytest.raises(InputError, match="p_Star and p_star differ in large and small letters only"):
        schema([Column("p_Star", "float32"), Column("p_star", "float32")])
    with pytest.raises(InputError, match="no Arrow type"):
        schema([Column("a", "complex64")])


@pytest.mark.parametrize("reader", ["parquet", "parquet.votable"])
@pytest.mark.parametrize("count", [0, 3])
def test_astropy_reads_units_back_from_a_part(tmp_path: Path, reader: str, count: int) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    info = catalog.write_part("im_0", DIGEST, unit_rows("im_0", count))
    table = Table.read(tmp_path / "c" / info.path, format=reader)
    assert len(table) == count
    assert table["ra"].unit == u.deg
    assert table["flux"].unit == u.nJy
    assert table["flux"].description == "Flux"
    if count:
        assert set(table["label"]) == {"spiral", "elliptical"}
        assert table["object_id"].dtype == np.int64


def test_a_part_that_does_not_fit_names_the_column(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    rows = unit_rows("im_0", 3)
    with pytest.raises(ValueError, match=r"missing \['e1'\]"):
        catalog.encode_part(rows.drop_columns(["e1"]), "im_0", DIGEST)
    with pytest.raises(ValueError, match=r"extra \['more'\]"):
        catalog.encode_part(rows.append_column("more", pa.array([1, 2, 3])), "im_0", DIGEST)
    with pytest.raises(ValueError, match="'e1' is double"):
        catalog.encode_part(rows.set_column(9, "e1", rows["e1"].cast("float64")), "im_0", DIGEST)
    with pytest.raises(ValueError, match="'object_id' has 1 nulls"):
        catalog.encode_part(rows.set_column(0, "object_id", pa.array([1, None, 3])), "im_0", DIGEST)
    assert not (tmp_path / "c" / "parts").exists()


def test_parts_are_sorted_and_do_not_depend_on_the_order_given(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    rows = unit_rows("im_0", 200)
    info, data = catalog.encode_part(rows, "im_0", DIGEST)
    shuffled = rows.take(np.random.default_rng(1).permutation(200))
    assert catalog.encode_part(shuffled, "im_0", DIGEST)[1] == data
    index = pq.read_table(pa.BufferReader(data))[HEALPIX].to_pylist()
    assert index == sorted(index)
    assert (info.healpix_min, info.healpix_max, info.nulls, info.bytes) == (index[0], index[-1], 0, len(data))


def test_a_part_without_a_sky_has_null_positions(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    info = catalog.write_part("im_0", DIGEST, unit_rows("im_0", 4, wcs=False))
    assert (info.healpix_min, info.healpix_max, info.nulls) == (None, None, 4)
    assert Table.read(tmp_path / "c" / info.path, format="parquet")["ra"].tolist() != []


@pytest.mark.parametrize("unit", ["a/b", "..", ".hidden", "", "x" * 300, "back\\slash"])
def test_unit_names_that_are_no_file_names(unit: str) -> None:
    with pytest.raises(InputError, match="cannot be a file name"):
        part_path(unit, DIGEST)


# Opening


def test_create_opens_the_same_and_refuses_another(tmp_path: Path) -> None:
    url = str(tmp_path / "c")
    Catalog.create(url, DECLARED, IDENTITY)
    again = Catalog.create(url, DECLARED, IDENTITY)
    Catalog.create(url + "2", DECLARED, {"shard": (1, 2)})
    assert Catalog.create(url + "2", DECLARED, {"shard": (1, 2)}).identity == {"shard": [1, 2]}
    assert pickle.loads(pickle.dumps(again)).schema.equals(DECLARED)
    with pytest.raises(InputError, match="bundle = b, this run has other: choose another --out"):
        Catalog.create(url, DECLARED, {**IDENTITY, "bundle": "other"})
    with pytest.raises(InputError, match="other columns"):
        Catalog.create(url, schema(COLUMNS[:1]), IDENTITY)


def test_places_that_are_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no catalog at"):
        Catalog.open(str(tmp_path / "none"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Catalog.create(str(tmp_path / "file"), DECLARED, IDENTITY)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "zarr.json").write_text("{}")
    with pytest.raises(InputError, match="holds a Zarr store"):
        Catalog.create(str(tmp_path / "store"), DECLARED, IDENTITY)
    catalog, _ = small_catalog(tmp_path / "c", units=1)
    declared = storage.read_json(catalog.url + "/schema.json")
    storage.write_json(catalog.url + "/schema.json", {**declared, "format": 9})
    with pytest.raises(InputError, match="format 9"):
        Catalog.open(catalog.url)


# What is done, and the manifest


def test_listed_says_what_is_done(tmp_path: Path) -> None:
    catalog, infos = small_catalog(tmp_path / "c", units=3)
    assert catalog.listed() == {f"im_{k}": {DIGEST} for k in range(3)}
    assert infos[0].path == part_path("im_0", DIGEST)
    (tmp_path / "c" / "parts" / "000").mkdir(exist_ok=True)
    (tmp_path / "c" / "parts" / "000" / ".im_9-aa.parquet.12.tmp").write_text("half")
    assert "im_9" not in catalog.listed()


def test_a_query_while_a_run_goes_on_sees_what_is_there(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    run = catalog.start_run({"kind": "infer"})
    catalog.write_part("im_7", DIGEST, unit_rows("im_7"))
    assert len(rows_of(catalog)) == 60
    catalog.commit_manifest(run, [catalog.write_part("im_8", DIGEST, unit_rows("im_8"))])
    assert len(rows_of(catalog)) == 80


def test_a_killed_runs_parts_enter_the_manifest_of_the_next(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    killed = catalog.start_run({"kind": "infer"})
    catalog.write_part("im_7", DIGEST, unit_rows("im_7"))
    run = catalog.start_run({"kind": "infer"})
    catalog.finish_run(run, {"units_done": 0})
    states = {record["run_id"]: record["state"] for record in catalog.runs()}
    assert states[killed] == "interrupted"
    assert states[run] == "done"
    assert set(digests(catalog, reconcile=False)) == {"im_0", "im_1", "im_7"}
    assert storage.read_json(catalog.url + "/run.json")["run_id"] == run


def test_manifests_that_are_lost_are_noticed_and_rebuilt(tmp_path: Path) -> None:
    catalog, infos = small_catalog(tmp_path / "c", units=4)
    before = rows_of(catalog)
    for name in catalog.manifest_names():
        storage.remove(f"{catalog.url}/manifest/{name}")
    assert rows_of(catalog) == before
    assert catalog.rebuild_manifest() == 4
    table = catalog.current(reconcile=False)
    assert table["path"].to_pylist() == sorted(info.path for info in infos) or table.num_rows == 4
    assert {i.unit: i.healpix_max for i in infos} == dict(
        zip(table["unit"].to_pylist(), table["healpix_max"].to_pylist())
    )


def test_many_flushes_become_one_manifest_file(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=1)
    run = catalog.start_run({"kind": "infer"})
    for k in range(70):
        catalog.commit_manifest(run, [catalog.write_part(f"n_{k}", DIGEST, unit_rows(f"n_{k}", 1))])
    assert len([name for name in catalog.manifest_names() if name.startswith(run)]) < 10
    catalog.finish_run(run)
    assert [name for name in catalog.manifest_names() if name.startswith(run)] == [f"{run}.parquet"]
    assert len(digests(catalog, reconcile=False)) == 71


# Superseded parts


def test_a_newer_part_takes_over_at_once_and_the_old_one_goes(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    run = catalog.start_run({"kind": "infer"})
    fresh = unit_rows("im_1", 5, seed=9)
    info = catalog.write_part("im_1", OTHER, fresh)
    assert catalog.listed()["im_1"] == {DIGEST, OTHER}
    wanted = expected_rows(im_0=unit_rows("im_0"), im_1=fresh)
    assert rows_of(catalog) == wanted  # unlisted is newest
    catalog.commit_manifest(run, [info])
    assert rows_of(catalog) == wanted
    assert drop_superseded(catalog, run, [("im_1", OTHER)]) == [part_path("im_1", DIGEST)]
    catalog.finish_run(run)
    assert rows_of(catalog) == wanted
    assert catalog.listed() == {"im_0": {DIGEST}, "im_1": {OTHER}}


def test_going_back_to_the_first_digest_drops_what_a_killed_run_wrote(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=1)
    catalog.start_run({"kind": "infer"})
    catalog.write_part("im_0", OTHER, unit_rows("im_0", 3, seed=4))
    run = catalog.start_run({"kind": "infer"})
    drop_superseded(catalog, run, [("im_0", DIGEST)])
    catalog.finish_run(run)
    assert digests(catalog) == {"im_0": DIGEST} == digests(catalog, reconcile=False)


def test_a_wanted_part_that_is_not_there_drops_nothing(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=1)
    run = catalog.start_run({"kind": "infer"})
    assert drop_superseded(catalog, run, [("im_0", "c" * 16)]) == []
    assert digests(catalog) == {"im_0": DIGEST}


def test_a_unit_inside_a_merged_file_is_superseded_by_rewriting_it(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=3)
    compact(catalog)
    old = rows_of(catalog)
    run = catalog.start_run({"kind": "infer"})
    fresh = unit_rows("im_1", 5, seed=9)
    catalog.commit_manifest(run, [catalog.write_part("im_1", OTHER, fresh)])
    assert rows_of(catalog) == old  # the merged file's rows stand until the run ends: never both
    assert catalog.listed()["im_1"] == {DIGEST, OTHER}
    drop_superseded(catalog, run, [("im_1", OTHER)])
    catalog.finish_run(run)
    assert rows_of(catalog) == expected_rows(im_0=unit_rows("im_0"), im_1=fresh, im_2=unit_rows("im_2"))
    assert catalog.listed() == {"im_0": {DIGEST}, "im_1": {OTHER}, "im_2": {DIGEST}}


# Failures and unplaced objects


def test_failures_of_several_runs_are_one_table_without_what_is_done(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=1)

    def failed(unit: str, reason: str) -> pa.Table:
        return pa.table({"unit": [unit], "reason": [reason], "attempts": [2], "time": ["t"]})

    first, second = (catalog.start_run({"kind": "infer", "shard": k}) for k in range(2))
    catalog.write_failures(failed("im_8", "broken"), first)
    catalog.write_failures(failed("im_9", "broken"), second)
    assert catalog.failures()["unit"].to_pylist() == ["im_8", "im_9"]
    third = catalog.start_run({"kind": "infer"})
    catalog.write_part("im_8", DIGEST, unit_rows("im_8"))
    catalog.write_failures(failed("im_9", "again"), third)
    assert catalog.failures()["unit"].to_pylist() == ["im_9"]
    assert catalog.failures()["reason"].to_pylist() == ["again"]


def test_unplaced_is_typed_when_absent(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=1)
    assert catalog.unplaced().num_rows == 0
    catalog.write_unplaced(pa.table({"object_id": [1], "reason": ["r"], "x": [1.0]}))
    assert catalog.unplaced()["ra"].to_pylist() == [None]


def test_a_remote_catalog_is_the_same(tmp_path: Path) -> None:
    remote, _ = small_catalog("memory://catalog-test/c", units=3)
    local, _ = small_catalog(tmp_path / "c", units=3)
    assert rows_of(remote) == rows_of(local)
    assert remote.listed() == local.listed()
    compact(remote)
    assert rows_of(remote) == rows_of(local)
    assert remote.listed() == local.listed()
