"""A catalog and its objects tables: a second one is refused or added, a changed one replaces itself, none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astroml_plugin.catalog.objects.in_memory import arrow_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from tests import universe
from workflows.infer import InferResult, ObjectTable, infer
from workflows.query import query


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey, a bundle, and its objects in two tables: a.parquet and, of some tiles only, b.csv."""
    folder = tmp_path_factory.mktemp("sky")
    universe.make_survey(str(folder / "survey.zarr"))
    universe.make_bundle(str(folder / "kind"))
    universe.make_objects(folder / "objects.parquet")
    table = pq.read_table(folder / "objects.parquet")
    b = table.slice(150)
    pq.write_table(table.slice(0, 150), folder / "a.parquet")
    rows = zip(b["object_id"].to_pylist(), b["ra"].to_pylist(), b["dec"].to_pylist(), strict=True)
    lines = ["object_id,ra,dec", *(f"{i},{ra!r},{dec!r}" for i, ra, dec in rows), "7,1.0,80.0"]
    (folder / "b.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(sky: Path, out: Path, client: object, table: object, *, extend: bool = False) -> InferResult:
    objects = ObjectTable(table=table, extend=extend)
    return infer(str(sky / "survey.zarr"), bundle=str(sky / "kind"), objects=objects, out=str(out), client=client)


def ids(out: Path, view: str = "catalog") -> list[int]:
    where = 'WHERE "primary"' if view == "catalog" else ""
    return sorted(query(str(out), f"SELECT object_id FROM {view} {where}").to_arrow()["object_id"].to_pylist())


def test_another_table_is_refused_and_nothing_goes(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "c", client, str(sky / "a.parquet"))
    before = ids(tmp_path / "c")
    with pytest.raises(
        InputError, match=r"150 objects of .*a\.parquet; this run has the 51 objects of .*b\.csv: .*--ext"
    ):
        run(sky, tmp_path / "c", client, str(sky / "b.csv"))
    assert ids(tmp_path / "c") == before
    assert len(before) == 150


def test_a_second_table_extends_the_first(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "c"
    run(sky, out, client, sky / "a.parquet")
    added = run(sky, out, client, sky / "b.csv", extend=True)
    assert (added.unplaced, added.changed_tables) == (1, ())
    assert ids(out) == list(range(10**17, 10**17 + 200))
    assert ids(out, "unplaced") == [7]
    for table in ("a.parquet", "b.csv"):  # either stands for both from now on
        again = run(sky, out, client, str(sky / table))
        assert (again.units_done, again.rows) == (0, 0)
    run(sky, tmp_path / "whole", client, sky / "objects.parquet")
    one, two = (
        query(str(place), "SELECT * FROM catalog ORDER BY object_id").to_arrow() for place in (out, tmp_path / "whole")
    )
    np.testing.assert_allclose(one["p_star"].to_numpy(), two["p_star"].to_numpy(), rtol=2e-5)
    assert one["flags"].equals(two["flags"])


def test_the_table_under_another_name_or_in_another_format_is_the_table(
    sky: Path, tmp_path: Path, client: object
) -> None:
    table = pq.read_table(sky / "a.parquet")
    run(sky, tmp_path / "c", client, str(sky / "a.parquet"))
    table.to_pandas()[["object_id", "ra", "dec"]].to_csv(tmp_path / "moved.csv", index=False, float_format="%.17g")
    for same in (str(tmp_path / "moved.csv"), table, table.to_pandas()):
        again = run(sky, tmp_path / "c", client, same)
        assert again.units_done == 0
    with pytest.raises(InputError, match="given-"):
        run(sky, tmp_path / "c", client, table.slice(1))


def test_a_table_that_changed_replaces_itself_and_says_so(sky: Path, tmp_path: Path, client: object) -> None:
    table = pq.read_table(sky / "a.parquet")
    pq.write_table(table, tmp_path / "t.parquet")
    run(sky, tmp_path / "c", client, tmp_path / "t.parquet")
    pq.write_table(table.slice(50), tmp_path / "t.parquet")
    changed = run(sky, tmp_path / "c", client, tmp_path / "t.parquet")
    assert "t.parquet has changed: its 100 objects replace the 150" in changed.changed_tables[0]
    assert ids(tmp_path / "c") == sorted(table.slice(50)["object_id"].to_pylist())


def test_objects_of_both_tables_are_marked(sky: Path, tmp_path: Path, client: object) -> None:
    table = pq.read_table(sky / "a.parquet")
    pq.write_table(table.slice(0, 3), tmp_path / "few.parquet")
    run(sky, tmp_path / "c", client, tmp_path / "few.parquet")
    run(sky, tmp_path / "c", client, table.slice(2, 2), extend=True)
    flags = query(str(tmp_path / "c"), "SELECT object_id, flags FROM catalog").to_arrow()
    (tmp_path / "few.parquet").unlink()
    with pytest.raises(InputError, match=r"has the objects of .*few\.parquet too, which is gone: put it back"):
        run(sky, tmp_path / "c", client, table.slice(2, 2))
    marked = [i for i, bits in zip(*flags.to_pydict().values(), strict=True) if bits & ObjectFlag.DUPLICATE_ID]
    assert marked == [table["object_id"][2].as_py()] * 2
    assert flags.num_rows == 5


def test_tables_from_python_and_what_is_none() -> None:
    plain = {"object_id": [1, 2], "ra": [1.0, 2.0], "dec": [0.0, 0.0]}
    assert arrow_of(plain).num_rows == 2
    assert arrow_of(pa.table(plain).to_reader()).num_rows == 2
    strange = {"image": [np.zeros(3), np.zeros((2, 2))], "mixed": [1, "a"], "c": [1j, 2j]}
    assert arrow_of(pd.DataFrame({**plain, **strange})).select(list(plain)).to_pydict() == plain
    assert arrow_of(pd.DataFrame(plain).set_index("object_id")).to_pydict() == plain
    assert arrow_of(np.array([(1, 1.0, 0.0)], dtype=[("object_id", ">i8"), ("ra", ">f8"), ("dec", "f8")])).num_rows == 1
    sky = SkyCoord(l=[18.38, 0.0] * u.deg, b=[0.24, 90.0] * u.deg, frame="galactic")
    found = arrow_of(Table({"object_id": [1, 2], "where": sky, "name": [b"a", b"b"], "pixels": np.zeros((2, 3))}))
    np.testing.assert_allclose([found["ra"], found["dec"]], [sky.icrs.ra.deg, sky.icrs.dec.deg], rtol=0, atol=1e-12)
    assert found["name"].to_pylist() == ["a", "b"]
    for wrong, says in (
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "one name"),
        ([1, 2], "cannot be a list"),
        ({"a": [1], "b": [1, 2]}, "cannot be read"),
    ):
        with pytest.raises(InputError, match=says):
            arrow_of(wrong)


def test_a_catalog_is_no_objects_table_and_its_rows_are(tmp_path: Path) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"), shape=(192, 192), tile_size=192, halo=32).url
    objects = universe.make_objects(tmp_path / "objects.parquet", 5, (192, 192))
    bundle = universe.make_bundle(str(tmp_path / "kind"))
    first = infer(survey, bundle=bundle, objects=objects, out=tmp_path / "a")
    with pytest.raises(InputError, match=r"is a catalog.*query .* --to objects.parquet") as caught:
        infer(survey, bundle=bundle, objects=first.catalog, out=tmp_path / "b")
    sql = str(caught.value).split("'")[1]
    query(first.catalog, sql, to=tmp_path / "again.parquet")
    again = infer(survey, bundle=bundle, objects=tmp_path / "again.parquet", out=tmp_path / "c")
    assert again.rows == first.rows == 5
