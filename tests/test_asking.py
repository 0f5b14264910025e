"""A catalog asked step by step: the same rows as by SQL, nothing that leaves its place in the SQL, sensible faces."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn
from catalogs import IDENTITY, foreign_catalog, small_catalog

from astroml_plugin import Catalog, ModelBundle, Selection, Stamps, flag_names
from astroml_plugin.catalog import Column, schema
from astroml_plugin.catalog.conditions import condition_sql, literal
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.results import short
from tests import universe
from workflows.query import query
from workflows.rank import rank
from workflows.train import TrainResult


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    made, _ = small_catalog(tmp_path_factory.mktemp("asking") / "cat")
    return Catalog.open(Path(made.url))


def ids(found: Selection | pa.Table) -> list[int]:
    """Ids in a fixed order: rows come in none."""
    table = found if isinstance(found, pa.Table) else found.to_arrow()
    return sorted(table["object_id"].to_pylist())


def by_sql(catalog: Catalog, condition: str) -> list[int]:
    return ids(query(catalog.url, f"SELECT object_id FROM catalog WHERE {condition}").to_arrow())


def test_steps_give_the_rows_of_the_sql(catalog: Catalog) -> None:
    assert ids(catalog.where("e1 > 0.5")) == by_sql(catalog, "e1 > 0.5")
    assert ids(catalog.where("e1 > ? OR flux < ?", 0.5, np.float32(20))) == by_sql(catalog, "e1 > 0.5 OR flux < 20")
    assert ids(catalog.where(label="spiral", flags=[0, 1])) == by_sql(catalog, "label = 'spiral' AND flags IN (0, 1)")
    assert ids(catalog.where("e1 > 0").where("e1 < 0.5 OR TRUE")) == by_sql(catalog, "e1 > 0")
    some = by_sql(catalog, "e1 > 1")
    assert ids(catalog.where("object_id IN ?", np.array(some))) == some
    assert ids(catalog.where("object_id IN ?", [])) == []
    assert len(catalog.where("object_id NOT IN ?", [])) == 120


def test_the_top_is_of_the_rows_that_pass_whatever_the_order_of_the_steps(catalog: Catalog) -> None:
    flux = query(catalog.url, "SELECT flux FROM catalog WHERE label = 'spiral' ORDER BY flux DESC LIMIT 7").to_arrow()
    for asked in (catalog.top(7, by="flux").where(label="spiral"), catalog.where(label="spiral").top(7, by="flux")):
        assert asked.columns("flux").to_arrow()["flux"].to_pylist() == flux["flux"].to_pylist()
        assert len(asked) == 7
    low = catalog.top(1, by="flux", smallest=True)["flux"]
    assert low.unit == u.nJy
    assert low[0].value == min(row["flux"] for row in catalog)


def test_values_that_are_no_numbers_are_never_on_top(tmp_path: Path) -> None:
    opened = Catalog.open(foreign_catalog(tmp_path / "c").url)
    assert opened.top(9, by="flux").to_arrow()["flux"].to_pylist() == [1.5, 1.5, -1.0, -1.0]
    assert None not in opened.top(9, by="small").to_arrow()["small"].to_pylist()


def test_near_is_the_cone(catalog: Catalog) -> None:
    expected = ids(query(catalog.url, cone=(12.5, 0, 0.4)).to_arrow())
    assert expected
    assert ids(catalog.near(SkyCoord(12.5 * u.deg, 0 * u.deg), 24 * u.arcmin)) == expected
    assert ids(catalog.near(12.5, 0, 0.4)) == ids(catalog.near("0h50m00s +0d0m0s", "24arcmin")) == expected
    assert ids(catalog.near("12.5 0 0.4")) == expected
    with pytest.raises(InputError, match="one circle only"):
        catalog.near("12.5 0 0.4").near("12.5 0 0.4")


def test_good_leaves_out_what_the_flags_make_doubtful(catalog: Catalog) -> None:
    assert {row["flags"] for row in catalog.good()} == {0}
    assert {row["flags"] for row in catalog.good(allow="MASKED")} == {0, 2}
    with pytest.raises(InputError, match="did you mean 'MASKED'"):
        catalog.good(allow=("MASKD",))


def test_good_asks_every_bundle_or_the_one_that_is_named(tmp_path: Path) -> None:
    columns = (
        Column("a_flags", "int32", "", "meta.code", "Flags"),
        Column("b_flags", "int32", "", "meta.code", "Flags"),
    )
    made = Catalog.create(str(tmp_path / "c"), schema(columns), IDENTITY)
    rows = {"object_id": [1, 2, 3, 4], "image": ["i"] * 4, "tile": ["i"] * 4, "x": [1.0] * 4, "y": [1.0] * 4}
    rows |= {"ra": [1.0] * 4, "dec": [1.0] * 4, "primary": [True, True, True, False], "flags": [0, 32, 0, 0]}
    rows |= {"a_flags": [0, 32, 256, 0], "b_flags": [256, 32, 0, 0]}
    table = pa.table(rows)
    made.write_part("i", "a" * 16, table.cast(pa.schema([made.schema.field(name) for name in table.column_names])))
    opened = Catalog.open(made.url)
    assert ids(opened.good()) == [2]
    assert ids(opened.good("a")) == [1, 2]
    assert ids(opened.good("b")) == [2, 3]
    with pytest.raises(InputError, match="valid are a, b"):
        opened.good("shapes")


BAD = (
    "TRUE) UNION SELECT object_id FROM unplaced WHERE (TRUE",
    "TRUE; SELECT 1",
    "TRUE -- AND",
    "TRUE /* x",
    "label = 'open",
    '"open = 1',
    "(TRUE",
    "",
    "label = E'\\'' ) UNION SELECT * FROM unplaced WHERE ('' = ''",
    "label = $$x$$",
)


@pytest.mark.parametrize("condition", BAD)
def test_a_condition_stays_in_its_parentheses(catalog: Catalog, condition: str) -> None:
    with pytest.raises(InputError, match="must be one expression"):
        catalog.where(condition)


@pytest.mark.parametrize("text", ["' OR TRUE --", "it's", '"; DROP', "?", "\\' OR 1=1", "größer", "a%b"])
def test_a_value_is_a_value_whatever_stands_in_it(tmp_path: Path, text: str) -> None:
    opened = Catalog.open(foreign_catalog(tmp_path / "c").url)
    same = [row for row in opened if row["label"] == text]
    assert len(opened.where(label=text)) == len(opened.where("label = ?", text)) == len(same)


def test_wrong_steps_say_what_is_right(catalog: Catalog) -> None:
    for step, says in (
        (lambda: catalog.where(lable="x"), "did you mean 'label'"),
        (lambda: catalog.columns("ra", "decl"), "did you mean 'dec'"),
        (lambda: catalog.top(5, by="flx"), "did you mean 'flux'"),
        (lambda: catalog.top(5, by="label"), "a column of numbers"),
        (lambda: catalog.top(0, by="flux"), "a number from 1 on"),
        (lambda: catalog.where("flux > ?"), "more question marks"),
        (lambda: catalog.where("flux > 1", 2), "fewer question marks"),
        (lambda: catalog.where("flux > ?", 5 * u.uJy), "has a unit"),
        (lambda: catalog.where("flux > ?", {"a": 1}), "numbers, texts and lists"),
        (lambda: catalog.where("nope > 1").get(), "nope"),
    ):
        with pytest.raises(InputError, match=says):
            step()


def test_literals_of_all_kinds() -> None:
    values = [True, np.int64(3), 2.5, float("inf"), None, "a'b", pa.scalar(7)]
    assert literal(values) == "(TRUE, 3, 2.5, 'inf'::DOUBLE, NULL, 'a''b', 7)"
    assert condition_sql("a = '?' AND b = ?", [1]) == "a = '?' AND b = 1"


def test_nothing_is_read_before_it_is_wanted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    real = query

    def counted(*given: object, **options: object) -> object:
        asked.append("query")
        return real(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("astroml_plugin.catalog.asking.query", counted)
    selection = catalog.where("flux > 2").near(12.5, 0, 3).columns("object_id", "ra", "dec").top(5, by="flux").good()
    told = repr(selection)
    assert not asked
    assert 'SELECT "object_id", "ra", "dec"\nFROM catalog\nWHERE (flux > 2)' in told
    assert "within 3 deg of 12.500000 +0.000000" in told
    assert ids(query(catalog.url, selection.sql, cone=selection.cone).to_arrow()) == ids(selection)
    assert selection.write(tmp_path / "five.fits").rows == 5
    assert ids(pickle.loads(pickle.dumps(selection))) == ids(selection)


def test_a_catalog_and_its_answers_are_tables(catalog: Catalog) -> None:
    assert len(catalog) == 120 == sum(1 for _ in catalog)
    assert repr(catalog).endswith("cat: 120 rows, 13 columns")
    assert "<td>flux</td>" in catalog._repr_html_()
    found = query(catalog.url, "SELECT object_id, ra, dec, label, flux FROM catalog ORDER BY object_id LIMIT 30")
    assert len(found) == 30
    assert [row["object_id"] for row in found] == found.to_arrow()["object_id"].to_pylist() == ids(found.to_arrow())
    assert found["flux"].unit == u.nJy
    assert list(found["label"][:2]) == found.to_arrow()["label"].to_pylist()[:2]
    with pytest.raises(InputError, match="did you mean 'flux'"):
        found["flx"]
    places = found.to_skycoord()
    assert places.frame.name == "icrs"
    np.testing.assert_array_equal(places.ra.deg, found.to_arrow()["ra"].to_numpy())
    assert repr(found).startswith("QueryResult: 30 rows, 5 columns\n")
    assert "… 20 more rows" in repr(found)
    assert "<th>nJy</th>" in found._repr_html_()
    assert "10 more rows" in found._repr_html_()
    with pytest.raises(InputError, match="no column ra and no dec"):
        query(catalog.url, "SELECT flux FROM catalog").to_skycoord()
    top = rank(catalog.url, top=3, score="flux")
    assert len(top) == 3 == len(top.to_skycoord())
    assert repr(top).startswith("Ranked: top 3 of 120 by flux")


def test_rows_without_a_position_have_none(tmp_path: Path) -> None:
    opened = Catalog.open(foreign_catalog(tmp_path / "c").url)
    assert np.isnan(opened.to_skycoord().ra.deg).sum() == 2
    assert "[1 2 3]" in repr(query(opened.url, "SELECT latent FROM catalog"))


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (0, ()),
        (3, ("EDGE", "MASKED")),
        (ObjectFlag.EDGE | ObjectFlag.BLENDED, ("EDGE", "BLENDED")),
        (np.int32(256), ("OUT_OF_DOMAIN",)),
        (1 << 20 | 1, ("EDGE", "1048576")),
        (None, ()),
        (np.nan, ()),
        ([0, 1], [(), ("EDGE",)]),
        (np.array([[1], [2]]), [[("EDGE",)], [("MASKED",)]]),
        (pa.array([1, None]), [("EDGE",), ()]),
        (pa.scalar(2), ("MASKED",)),
        (pd.Series([1.0, np.nan]), [("EDGE",), ()]),
        (pd.array([1, None], dtype="Int32"), [("EDGE",), ()]),
        (MaskedColumn([1, 2], mask=[False, True]), [("EDGE",), ()]),
    ],
    ids=str,
)
def test_names_of_flags(flags: object, names: object) -> None:
    assert flag_names(flags) == names


@pytest.mark.parametrize("flags", [-1, 1.5, "EDGE", True])
def test_what_is_no_flags(flags: object) -> None:
    with pytest.raises(InputError, match="whole numbers from 0 on"):
        flag_names(flags)


def test_stores_and_bundles_have_faces_and_can_be_looped_over(tmp_path: Path) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"))
    assert [info.name for info in survey] == [info.name for info in survey.iter_tiles()]
    assert repr(survey).startswith(f"Survey {survey.url}: tiles 12 of 192 pixels with a halo of 32, bands r, ")
    assert "<li>bands: r</li>" in survey._repr_html_()
    assert survey.to_skycoord().separation(SkyCoord(150 * u.deg, 2 * u.deg)).max() < 1 * u.arcmin
    bare = universe.make_survey(str(tmp_path / "w.zarr"), shape=(128, 128), wcs=False)
    assert np.isnan(bare.to_skycoord().ra.deg).all()
    stamps = Stamps.open(universe.make_stamps(str(tmp_path / "t.zarr")))
    one = next(iter(stamps))
    assert one["object_id"] == stamps.labels()["object_id"][0].as_py()
    assert one["image"].shape == (len(stamps.bands), *stamps.size)
    assert sum(1 for _ in stamps) == len(stamps) == len(stamps.to_skycoord())
    assert repr(stamps).startswith(f"Stamps {stamps.url}: stamps {len(stamps)} of ")
    bundle = ModelBundle.load("lens")
    assert f"lens {bundle.url}: classify, bands g, r, i, 64 pixels of 0.2 arcsec, " in repr(bundle)
    assert "<li>task: classify</li>" in bundle._repr_html_()


def test_results_say_their_fields_in_few_letters() -> None:
    counts = {f"class {number}": number / 3 for number in range(9)}
    told = repr(TrainResult("b", 3, 2, 1000, {"test": counts}, 12.3456789))
    assert told.splitlines()[:2] == ["TrainResult", "  bundle: b"]
    assert "seconds: 12.346" in told
    assert "metrics: test class 0 0, class 1 0.33333, class 2 0.66667" in told
    assert max(map(len, told.splitlines())) < 120
    assert short(list(range(9))) == "0, 1, 2, 3, 4, 5, … 3 more"
    assert "<th>epochs</th><td>3</td>" in TrainResult("<b>", 3, 2, 1, {}, 1.0)._repr_html_()
    assert "&lt;b&gt;" in TrainResult("<b>", 3, 2, 1, {}, 1.0)._repr_html_()
