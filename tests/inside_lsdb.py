"""Tests that need LSDB, hats-import and mocpy; `test_hats.py` runs them in an environment that has them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import lsdb
import mocpy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from catalogs import foreign_catalog, small_catalog, unit_rows

from astroml_plugin import measure_partition
from astroml_plugin.catalog import COMMON_COLUMNS, Catalog, schema
from astroml_plugin.catalog.query import query
from astroml_plugin.core.errors import InputError
from workflows.cli import main
from workflows.cluster import cluster
from workflows.export import export

ROOT = Path(__file__).parents[1]
SMALL = {"partition_rows": 50}


@pytest.fixture(autouse=True)
def _synchronous() -> object:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return small_catalog(tmp_path_factory.mktemp("hats") / "cat")[0]


@pytest.fixture(scope="module")
def sky(catalog: Catalog) -> Path:
    out = Path(catalog.url).parent / "sky"
    result = export(catalog.url, to="hats", out=out, **SMALL)
    assert (result.rows, result.notes) == (120, ())
    assert result.hats is not None
    assert result.hats.partitions > 2
    return out


def ids(frame: pd.DataFrame) -> list[int]:
    return sorted(int(number) for number in frame["object_id"])


def test_rows_cone_and_matches_are_those_of_query(catalog: Catalog, sky: Path) -> None:
    opened = lsdb.open_catalog(sky)
    frame = opened.compute()
    wanted = query(catalog.url).to_arrow()
    assert ids(frame) == sorted(wanted["object_id"].to_pylist())
    assert frame.index.name == "_healpix_29"
    merged = wanted.to_pandas().set_index("object_id").loc[frame["object_id"].to_numpy()]
    for name in ("x", "ra", "dec", "flux", "e1"):
        np.testing.assert_array_equal(frame[name].to_numpy(), merged[name].to_numpy())
    assert frame["label"].tolist() == merged["label"].tolist()
    assert frame.index.tolist() == merged["_healpix_29"].tolist()
    near = query(catalog.url, cone=(12.5, 0.0, 0.5)).to_arrow()
    assert ids(opened.cone_search(12.5, 0.0, 1800).compute()) == sorted(near["object_id"].to_pylist())
    assert 0 < near.num_rows < 120
    pairs = opened.crossmatch(opened, radius_arcsec=0.1, suffixes=("_a", "_b"), suffix_method="all_columns").compute()
    assert (pairs["object_id_a"] == pairs["object_id_b"]).all()
    assert len(pairs) == 120


def test_files_say_units_flags_and_origin(catalog: Catalog, sky: Path) -> None:
    stored = pq.read_schema(next((sky / "sky" / "dataset").rglob("Npix=*.parquet")))
    assert stored.names[0] == "_healpix_29"
    assert stored.field("flux").metadata == {b"unit": b"nJy", b"ucd": b"phot.flux", b"description": b"Flux"}
    assert b"<VOTABLE" in stored.metadata[b"IVOA.VOTable-Parquet.content"]
    told = (sky / "sky" / "hats.properties").read_text()
    for words in ("hats_col_healpix=_healpix_29", "1 EDGE: part", catalog.runs()[0]["run_id"], "hats_nrows=120"):
        assert words in told
    assert "default_margin=sky_margin" in (sky / "collection.properties").read_text()


def test_an_export_that_is_done_is_not_done_again_and_another_one_is_refused(catalog: Catalog, sky: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sky.rglob("*") if path.is_file()}
    assert export(catalog.url, to="hats", out=sky, **SMALL).rows == 120
    assert {path: path.stat().st_mtime_ns for path in sky.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="another layout"):
        export(catalog.url, to="hats", out=sky, partition_rows=60)
    with pytest.raises(InputError, match="something else"):
        export(catalog.url, to="hats", out=Path(catalog.url))


def test_rows_that_nobody_expects(tmp_path: Path) -> None:
    catalog = foreign_catalog(tmp_path / "c")
    result = export(catalog.url, to="hats", out=tmp_path / "odd")
    assert (result.rows, result.notes) == (8, ("2 rows without a position on the sky are left out",))
    frame = lsdb.open_catalog(tmp_path / "odd").compute()
    assert ids(frame) == sorted([2**63 - 1, 2**63 - 2, 2**53 + 1, 2**53 + 2, 0, 1, -5, -6])
    rows = frame.set_index("object_id")
    assert rows.loc[2**63 - 1, "label"] == "größer"
    assert list(rows.loc[2**63 - 1, "latent"]) == [1, 2, 3]
    assert rows.loc[2**63 - 1, "dec"] == 90.0
    assert pd.isna(rows.loc[2**53 + 1, "flux"])
    assert rows.loc[2**53 + 1, "small"] == 255
    assert rows.loc[-5, "image"] == "Köln"
    assert ids(lsdb.open_catalog(tmp_path / "odd").cone_search(0.0, 0.0, 10).compute()) == [0, 1]
    cluster(catalog.url, name="groups", clusters=2, flagged=True)
    with pytest.raises(InputError, match="another layout"):
        export(catalog.url, to="hats", out=tmp_path / "odd", annotations=("groups",))
    assert export(catalog.url, to="hats", out=tmp_path / "more", annotations=("groups",)).rows == 8
    more = lsdb.open_catalog(tmp_path / "more").compute().set_index("object_id")
    assert pd.isna(more.loc[2**53 + 1, "cluster"])  # it has no vector
    wanted = query(catalog.url, "SELECT object_id, cluster FROM groups WHERE cluster IS NOT NULL").to_arrow()
    pairs = dict(zip(wanted["object_id"].to_pylist(), wanted["cluster"].to_pylist(), strict=True))
    placed = {number: int(more.loc[number, "cluster"]) for number in more.index[more["cluster"].notna()]}
    assert placed
    assert placed.items() <= pairs.items()
    assert "annotation groups sha256:" in (tmp_path / "more" / "more" / "hats.properties").read_text()


def test_no_positions_no_hats(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), schema([]), {"source": "s"})
    names = [column.name for column in COMMON_COLUMNS]
    catalog.write_part("im_0", "a" * 16, unit_rows("im_0", 4, wcs=False).select(names))
    for to in ("hats", "moc"):
        with pytest.raises(InputError, match="none of the 4 rows has a position on the sky"):
            export(catalog.url, to=to, out=tmp_path / "sky")
    assert not (tmp_path / "sky").exists()


def test_an_extension_gives_a_primary_its_new_columns(catalog: Catalog, tmp_path: Path) -> None:
    rows = query(catalog.url, "SELECT object_id AS objectId, ra, dec, flux AS mag FROM catalog").to_arrow()
    more = pa.table({"objectId": [5], "ra": [10.5], "dec": [0.25], "mag": [1.0]}, schema=rows.schema)
    given = pa.concat_tables([rows.slice(10), more]).to_pandas()
    made = lsdb.from_dataframe(given, catalog_name="given", ra_column="ra", dec_column="dec", partition_rows=20)
    made.write_catalog(tmp_path / "given")
    with pytest.raises(InputError, match="--extends-id"):
        export(catalog.url, to="hats", out=tmp_path / "ext", extends=str(tmp_path / "given"))
    options = {"extends": str(tmp_path / "given"), "extends_id": "objectId", "columns": ("e1", "label")}
    result = export(catalog.url, to="hats", out=tmp_path / "ext", **options)
    assert result.hats is not None
    joined = result.hats.joined
    assert joined is not None
    assert (joined.matched, joined.strangers, joined.without, joined.same_place) == (110, 10, 1, True)
    frame = lsdb.open_catalog(tmp_path / "given").load_extension(result.hats.properties).compute()
    assert set(frame.columns) == {"objectId", "ra", "dec", "mag", "e1", "label"}
    assert len(frame) == 111
    wanted = query(catalog.url).to_arrow().to_pandas().set_index("object_id")["e1"]
    known = frame[frame["objectId"] != 5]
    np.testing.assert_array_equal(known["e1"].to_numpy(), wanted.loc[known["objectId"].to_numpy()].to_numpy())
    assert pd.isna(frame.set_index("objectId").loc[5, "e1"])


def test_a_killed_export_goes_on(tmp_path: Path) -> None:
    catalog = small_catalog(tmp_path / "c", units=4, rows=2000)[0]
    code = f"from workflows.export import export; export({catalog.url!r}, to='hats', out={str(tmp_path / 'sky')!r}, "
    code += "partition_rows=300)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if len(list((tmp_path / "sky" / "sky" / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))) > 3:
            break  # the library removes folders elsewhere meanwhile
        time.sleep(0.02)
    assert process.poll() is None, "it ended before anything could be stopped"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "sky" / "collection.properties").exists()
    assert (tmp_path / "sky").exists()
    result = export(catalog.url, to="hats", out=tmp_path / "sky", partition_rows=300)
    assert result.rows == 8000
    frame = lsdb.open_catalog(tmp_path / "sky").compute()
    assert ids(frame) == sorted(query(catalog.url).to_arrow()["object_id"].to_pylist())
    assert not (tmp_path / "sky" / "intermediate").exists()


def test_mocs_hold_the_rows(catalog: Catalog, tmp_path: Path) -> None:
    rows = query(catalog.url).to_arrow()
    from astropy import units as u

    for suffix, form in (("moc", "fits"), ("json", "json"), ("txt", "ascii")):
        assert export(catalog.url, to="moc", out=tmp_path / f"a.{suffix}", order=11).rows == 120
        moc = mocpy.MOC.load(tmp_path / f"a.{suffix}", form)
        assert moc.max_order == 11
        inside = moc.contains_lonlat(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg)
        assert inside.all()
    cells = len(pc.unique(pc.shift_right(rows["_healpix_29"], 36)))
    np.testing.assert_allclose(moc.sky_fraction, cells / (12 * 4**11))


def test_the_code_of_the_page_runs_and_its_rows_are_those_of_infer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simulated = (
        "--kind",
        "survey",
        "--count",
        "4",
        "--seed",
        "7",
        "--tile-size",
        "320",
        "--halo",
        "64",
        "--out",
        "sim",
    )
    assert main(["simulate", *simulated]) == 0
    (tmp_path / "survey.zarr").symlink_to(tmp_path / "sim" / "survey.zarr")
    run = ("infer", "survey.zarr", "--bundle", "ellipticity", "--objects", "sim/truth.parquet", "--out", "CATALOG")
    assert main([*run, "--device", "cpu"]) == 0
    names: dict[str, object] = {"__name__": "page"}
    page = (ROOT / "docs" / "lsdb_topcat.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 5
    for number, block in enumerate(blocks):
        exec(compile(block, f"block {number}", "exec"), names)
    wanted = query("CATALOG", 'SELECT * FROM catalog WHERE "primary"').to_arrow().to_pandas().set_index("object_id")
    found = names["measured"].compute().set_index("object_id")  # type: ignore[attr-defined]
    assert set(found.index) == set(wanted.index)
    assert len(found) > 50
    aligned = wanted.loc[found.index]
    for name in found.columns:
        left, right = (frame[name].to_numpy(dtype=float, na_value=np.nan) for frame in (found, aligned))
        np.testing.assert_array_equal(left, right, err_msg=name)
    outside = pd.DataFrame({"ra": [0.0], "dec": [80.0], "e1": [1.0]})
    with pytest.raises(InputError, match="prefix"):
        measure_partition(outside, "survey.zarr", "ellipticity")
    nothing = measure_partition(outside, "survey.zarr", "ellipticity", prefix="new_")
    assert nothing.filter(like="new_").isna().all(axis=None)
