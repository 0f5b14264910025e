"""Questions to a catalog: cones, SQL, units, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import QTable, Table
from catalogs import DECLARED, IDENTITY, small_catalog, unit_rows

from astroml_plugin.catalog import HEALPIX, Catalog, sql
from astroml_plugin.catalog.cones import cone_ranges
from astroml_plugin.catalog.query import query
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sky.wcs import healpix29, separation
from workflows.query import query as workflow_query
from workflows.query import show


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    opened, _ = small_catalog(tmp_path_factory.mktemp("query") / "cat")
    return opened


def test_all_rows_with_units_and_exact_integers(catalog: Catalog) -> None:
    result = query(catalog.url)
    table = result.to_qtable()
    assert result.rows == len(table) == 120
    assert table["ra"].unit == u.deg
    assert table["flux"].unit == u.nJy
    assert table["flags"].dtype == np.int32
    assert sorted(table["object_id"].tolist()) == sorted(result.to_arrow()["object_id"].to_pylist())
    assert result.to_arrow().schema.field("flux").metadata[b"ucd"] == b"phot.flux"
    assert result.to_pandas().shape == (120, len(DECLARED.names))


@pytest.mark.parametrize("cone", [(12.5, 0.0, 0.4), (10.0, 0.2, 0.05), (15.99, 0.0, 3.0), (13.0, 0.0, 170.0)])
def test_a_cone_is_exactly_the_great_circle(catalog: Catalog, cone: tuple[float, float, float]) -> None:
    everything = query(catalog.url).to_arrow()
    inside = separation(everything["ra"].to_numpy(), everything["dec"].to_numpy(), cone[0], cone[1]) <= cone[2]
    found = query(catalog.url, cone=cone)
    expected = np.sort(everything["object_id"].to_numpy()[inside])
    np.testing.assert_array_equal(np.sort(found.to_arrow()["object_id"].to_numpy()), expected)


def test_a_cone_opens_only_files_that_may_hold_rows(catalog: Catalog) -> None:
    assert query(catalog.url, cone=(12.5, 0.0, 0.1)).parts == 1
    assert query(catalog.url, cone=(12.99, 0.0, 0.1)).parts == 2
    assert query(catalog.url, cone=(200.0, 0.0, 0.1)).parts == 0
    assert query(catalog.url, cone=(200.0, 0.0, 0.1)).rows == 0


def test_cone_ranges_hold_every_position_of_the_cone() -> None:
    generator = np.random.default_rng(5)
    for radius in (1e-5, 1e-3, 0.1, 2.0, 20.0, 90.0):
        for dec0 in (-90.0, -41.0, 0.0, 89.999):
            ra0 = generator.uniform(0, 360)
            ranges = cone_ranges(ra0, dec0, radius)
            step = radius * np.sqrt(generator.uniform(0, 1, 300))
            angle = generator.uniform(0, 2 * np.pi, 300)
            dec = np.clip(dec0 + step * np.sin(angle), -90, 90)
            ra = ra0 + step * np.cos(angle) / max(np.cos(np.radians(dec0)), 1e-3)
            inside = separation(ra, dec, ra0, dec0) <= radius
            index = healpix29(ra % 360, dec)[inside]
            place = np.searchsorted(ranges[:, 1], index, "right")
            assert (place < len(ranges)).all()
            assert (ranges[place, 0] <= index).all()


def test_a_cone_over_ra_zero(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    rows = unit_rows("im_0", 3)
    rows = rows.set_column(5, "ra", pa.array([359.999, 0.001, 1.0])).set_column(6, "dec", pa.array([0.0, 0.0, 0.0]))
    catalog.write_part("im_0", "a" * 16, rows)
    assert query(catalog.url, cone=(0.0, 0.0, 0.01)).rows == 2
    assert query(catalog.url, cone=(-360.0, 0.0, 0.01)).rows == 2


def test_a_cone_on_rows_without_positions_is_refused(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    assert query(catalog.url, cone=(10.0, 10.0, 1.0)).rows == 0  # nothing is there yet
    rows = unit_rows("im_0", 3)
    for place, name in ((5, "ra"), (6, "dec")):
        rows = rows.set_column(place, name, pa.nulls(3, pa.float64()))
    catalog.write_part("im_0", "a" * 16, rows)
    for text in (None, "SELECT count(*) AS n FROM catalog"):
        with pytest.raises(InputError, match=r"no object has a position on the sky.*ask without --cone"):
            query(catalog.url, text, cone=(10.0, 10.0, 1.0))


def test_sql_sees_only_the_cone(catalog: Catalog) -> None:
    everything = query(catalog.url, "SELECT count(*) AS n, max(ra) AS far FROM catalog").to_arrow().to_pylist()[0]
    within = query(catalog.url, "SELECT count(*) AS n, max(ra) AS far FROM catalog;", cone=(10.5, 0, 1)).to_pandas()
    assert everything["n"] == 120
    assert within["n"][0] < 40
    assert within["far"][0] < 11.6


COUNTS = {
    "SELECT count(*) AS n FROM catalog": True,
    "select COUNT(*) n, count() FROM catalog AS c;": True,
    "SELECT count(*) AS n FROM catalog WHERE ra > 0": False,
    "SELECT count(ra) AS n FROM catalog": False,
    "SELECT count(*) FILTER (ra > 0) AS n FROM catalog": False,
    "SELECT count(*) AS n FROM catalog GROUP BY tile": False,
    "SELECT count(*) AS n FROM catalog HAVING count(*) > 1": False,
    "SELECT count(*) AS n FROM catalog LIMIT 1": False,
    "SELECT count(*) AS n FROM catalog USING SAMPLE 100 PERCENT (system)": False,
    "SELECT count(*) AS n FROM catalog TABLESAMPLE 100%": False,
    "SELECT count(*) AS n FROM catalog, failures": False,
    "SELECT count(*) OVER () AS n FROM catalog": False,
    "SELECT count(DISTINCT tile) AS n FROM catalog": False,
}
"""Question -> whether the manifest knows the answer."""


@pytest.mark.parametrize("text", COUNTS)
def test_rows_are_counted_without_opening_a_part(catalog: Catalog, text: str) -> None:
    for units in (None, ["im_0"]):
        answer = query(catalog.url, text, units=units)
        assert (answer.parts == 0) == COUNTS[text]
        if COUNTS[text]:
            longer = query(catalog.url, f"SELECT * FROM ({text.rstrip(';')})", units=units)  # which opens the parts
            assert longer.parts > 0
            assert answer.to_arrow().equals(longer.to_arrow())


def test_rows_of_a_part_that_is_gone_are_not_counted(catalog: Catalog) -> None:
    text = "SELECT count(*) AS n FROM catalog"
    gone = next(Path(catalog.url, "parts").glob("*/*.parquet"))
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(CorruptError, match="have no file any more"):
        query(catalog.url, text)
    gone.write_bytes(kept)


def test_units_follow_columns_not_formulas(catalog: Catalog) -> None:
    text = "SELECT ra, flux AS brightness, flux * 2 AS flux, avg(flux) OVER () AS mean FROM catalog c LIMIT 5"
    table = query(catalog.url, text).to_qtable()
    assert table["ra"].unit == u.deg
    assert table["brightness"].unit == u.nJy
    assert getattr(table["flux"], "unit", None) is None
    assert getattr(table["mean"], "unit", None) is None


@pytest.mark.parametrize("kind", ["parquet", "csv", "fits", "vot"])
def test_answers_go_to_files_that_others_read(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"out.{kind}"
    result = query(catalog.url, 'SELECT object_id, ra, label, flags, "primary" FROM catalog ORDER BY 1', to=str(target))
    table = Table.read(target, format={"csv": "ascii.csv", "vot": "votable"}.get(kind, kind))
    ids = query(catalog.url, "SELECT object_id FROM catalog ORDER BY 1").to_arrow()["object_id"].to_pylist()
    assert result.rows == 120
    assert table["object_id"].tolist() == ids
    assert set(np.char.strip(np.asarray(table["label"], str))) == {"spiral", "elliptical"}
    if kind != "csv":
        assert table["ra"].unit == u.deg
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_cone_in_parquet_keeps_the_healpix_column_and_text_leaves_it_out(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    query(catalog.url, cone=(12.5, 0, 0.4), to=str(tmp_path / "a.parquet"))
    query(catalog.url, cone=(12.5, 0, 0.4), to=str(tmp_path / "a.fits"))
    stored = pq.read_table(tmp_path / "a.parquet")[HEALPIX].to_pylist()
    assert stored == sorted(stored)
    assert HEALPIX not in Table.read(tmp_path / "a.fits").colnames
    text = show(workflow_query(catalog.url, cone=(12.5, 0, 0.4)), rows=3)
    assert HEALPIX not in text
    assert "deg" in text
    assert "more rows" in text


def test_rows_without_a_position_are_in_no_cone_but_in_the_catalog(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    catalog.write_part("im_0", "a" * 16, unit_rows("im_0", 7, wcs=False))
    catalog.write_part("im_1", "a" * 16, unit_rows("im_1", 3))
    assert query(catalog.url).rows == 10
    assert query(catalog.url, cone=(10, 0, 180)).rows == 3
    table = query(catalog.url).to_qtable()
    assert np.isnan(table["ra"]).sum() == 7
    assert isinstance(table, QTable)


def test_an_empty_catalog_has_typed_views(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, IDENTITY)
    table = query(catalog.url).to_arrow()
    assert table.num_rows == 0
    assert table.schema.field("object_id").type == pa.int64()
    for view in ("failures", "unplaced"):
        assert query(catalog.url, f"SELECT * FROM {view}").rows == 0
    query(catalog.url, to=str(tmp_path / "none.parquet"))
    assert Table.read(tmp_path / "none.parquet")["ra"].unit == u.deg


def test_failures_and_unplaced_are_views(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    catalog.write_failures(pa.table({"unit": ["im_9"], "reason": ["broken"], "attempts": [2], "time": ["now"]}), "run")
    catalog.write_unplaced(pa.table({"object_id": [3], "reason": ["outside every tile"]}))
    assert query(catalog.url, "SELECT reason FROM failures").to_arrow()["reason"].to_pylist() == ["broken"]
    assert query(catalog.url, "SELECT object_id FROM unplaced").to_arrow()["object_id"].to_pylist() == [3]
    assert query(catalog.url, "SELECT count(*) AS n FROM unplaced, catalog").to_arrow()["n"].to_pylist() == [40]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM catalog", "nope"),
        ("SELECT * FROM '/etc/passwd'", "not exist"),
        ("SELECT primary FROM catalog", "needs quotes"),
        ("SELECT * FROM read_csv('/etc/hostname')", "disabled"),
        ("SELECT * FROM 'https://example.org/x.parquet'", "."),
        ("COPY (SELECT 1) TO 'x.csv'", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("SET enable_external_access = true", "one SELECT"),
        ("", "nothing"),
        ("SELECT * FROM catalog_frame", "catalog_frame"),
    ],
)
def test_sql_that_cannot_be_is_one_line(catalog: Catalog, text: str, says: str) -> None:
    catalog_frame = pa.table({"a": [1]})  # a Python variable must not be seen by the SQL
    with pytest.raises(InputError) as caught:
        query(catalog.url, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert catalog_frame.num_rows == 1


def test_wrong_questions(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no catalog at"):
        query(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"suffix \.parquet"):
        query(catalog.url, to=str(tmp_path / "a.txt"))
    for cone in ((0.0, 91.0, 1.0), (0.0, 0.0, 0.0), (float("nan"), 0.0, 1.0)):
        with pytest.raises(InputError, match="cone"):
            query(catalog.url, cone=cone)


def test_limit_and_comments(catalog: Catalog) -> None:
    assert query(catalog.url, "SELECT ra FROM catalog -- all of them", limit=4).rows == 4
    assert query(catalog.url, limit=3).rows == 3


def test_a_remote_catalog(tmp_path: Path) -> None:
    catalog, _ = small_catalog("memory://query-test/cat", units=3)
    assert query(catalog.url).rows == 60
    assert query(catalog.url, "SELECT tile FROM catalog", cone=(10.5, 0, 0.2)).rows > 0
    with pytest.raises(InputError, match="disabled"):
        query(catalog.url, "SELECT * FROM read_csv('/etc/passwd')")


def test_a_folder_with_glob_letters(tmp_path: Path) -> None:
    small_catalog(tmp_path / "run 1 it's", units=3)
    catalog, _ = small_catalog(tmp_path / "run [1] it's*", units=2)
    assert query(catalog.url).rows == 40


def test_files_beside_the_catalog_stay_closed(catalog: Catalog, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    way_out = f"{catalog.url}/parts/../../../{tmp_path.name}/other.parquet"
    for name in (str(tmp_path / "other.parquet"), way_out, f"{catalog.url}/schema.json"):
        with pytest.raises(InputError, match="disabled"):
            query(catalog.url, f"SELECT * FROM read_parquet('{name}')")


def test_a_notebook_without_ipywidgets_can_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    class Notebook:
        """DuckDB where Jupyter runs and ipywidgets are missing."""

        def execute(self, statement: str) -> None:
            raise duckdb.InvalidInputException(f"{statement}: required package 'ipywidgets' is missing")

    monkeypatch.setattr(duckdb, "connect", lambda **_: Notebook())
    assert isinstance(sql.connect(), Notebook)
