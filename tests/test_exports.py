"""Answers in other formats: every type arrives whole, nulls are nulls, the rest is refused in one sentence."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.io.votable import parse, validate
from astropy.table import MaskedColumn, QTable, Table
from catalogs import small_catalog, unit_rows

from astroml_plugin.catalog import Catalog, schema
from astroml_plugin.catalog.export.facts import with_provenance
from astroml_plugin.catalog.export.texts import ascii_text, is_plain
from astroml_plugin.catalog.overlay import OBJECTS_SCHEMA, LabelImage
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.write import FORMATS, write_rows
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import Box
from workflows.cli import main
from workflows.query import show
from workflows.rank import rank
from workflows.verbs.options import finish

READERS = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable"}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return small_catalog(tmp_path_factory.mktemp("exports") / "cat", units=2)[0]


def export(catalog: Catalog, folder: Path, text: str, kind: str) -> Path:
    target = folder / f"out.{kind}"
    query(catalog.url, text, to=str(target))
    assert [path.name for path in folder.iterdir()] == [target.name]
    return target


def read(path: Path) -> Table:
    kind = path.suffix[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*contains NULL.*")  # astropy asks for nulls of booleans
        return Table.read(path, format=READERS.get(kind, kind))


NULLS = (
    "SELECT * FROM (VALUES (true, 1, 999999, 1.5::DOUBLE, 'a', NULL), (NULL, NULL, NULL, NULL, NULL, NULL), "
    "(false, 3, 4, 'nan', 'b', NULL)) t(b, small, i, f, s, n)"
)


def test_nulls_in_fits_are_byte_zero_and_tnull(catalog: Catalog, tmp_path: Path) -> None:
    path = export(catalog, tmp_path, NULLS, "fits")
    with fits.open(path, logical_as_bytes=False) as opened:
        opened.verify("exception")
        raw = np.frombuffer(path.read_bytes()[opened[1]._data_offset :], "u1", 3 * opened[1].header["NAXIS1"])
        assert raw.reshape(3, -1)[:, 0].tolist() == [ord("T"), 0, ord("F")]
    table = read(path)
    assert table["i"].tolist() == [999999, None, 4]
    assert table["n"].tolist() == [None, None, None]
    assert table["small"].tolist() == [1, None, 3]
    assert np.isnan(table["f"].filled(np.nan)).tolist() == [False, True, True]
    assert table["s"].tolist() == ["a", "", "b"]


def test_nulls_in_votable_are_flags(catalog: Catalog, tmp_path: Path) -> None:
    path = export(catalog, tmp_path, NULLS, "vot")
    table = read(path)
    assert table["b"].tolist() == [True, None, False]
    assert table["i"].tolist() == [999999, None, 4]
    assert table["n"].tolist() == [None] * 3
    assert table["n"].dtype == np.int32
    assert b"BINARY2" in path.read_bytes()
    assert validate(str(path), output=None)
    parse(path, verify="exception")


def test_nulls_in_other_formats(catalog: Catalog, tmp_path: Path) -> None:
    answer = query(catalog.url, NULLS)
    table = answer.to_qtable()
    assert [table[name].tolist()[1] for name in ("b", "small", "i", "s", "n")] == [None] * 5
    assert answer.to_arrow().schema.field("n").type == pa.int32()
    assert "--" in show(answer)
    assert export(catalog, tmp_path, NULLS, "csv").read_text().splitlines()[2] == ",,,,,"
    (tmp_path / "out.csv").unlink()
    assert read(export(catalog, tmp_path, NULLS, "ecsv"))["b"].tolist() == [True, None, False]
    (tmp_path / "out.ecsv").unlink()
    stored = pq.read_table(export(catalog, tmp_path, NULLS, "parquet"))
    assert stored["f"].null_count == 1  # NaN and null stay apart
    assert stored["n"].null_count == 3


@pytest.mark.parametrize("bound", [np.int16, np.int32, np.int64])
def test_a_null_is_never_a_number_that_is_there(catalog: Catalog, tmp_path: Path, bound: type) -> None:
    low, high = int(np.iinfo(bound).min), int(np.iinfo(bound).max)
    word = {np.int16: "SMALLINT", np.int32: "INTEGER", np.int64: "HUGEINT"}[bound]
    text = f"SELECT a::{word} AS a FROM (VALUES ({low}), ({high}), (NULL), (0)) t(a)"
    assert read(export(catalog, tmp_path, text, "fits"))["a"].tolist() == [low, high, None, 0]


def test_every_number_of_a_type_and_a_null(catalog: Catalog, tmp_path: Path) -> None:
    text = "SELECT (i - 32768)::SMALLINT AS a FROM range(65536) t(i) UNION ALL SELECT NULL"
    table = read(export(catalog, tmp_path, text, "fits"))
    assert table["a"].dtype == np.dtype(">i4")
    assert table["a"].tolist() == [*range(-32768, 32768), None]


@pytest.mark.parametrize("kind", FORMATS)
def test_sums_of_integers_and_decimals(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    text = (
        "SELECT sum(CASE WHEN flags = 0 THEN 1 ELSE 0 END) AS good, sum(x::DECIMAL(10, 3)) AS d, 999.9 AS w, "
        "sum(flags) FILTER (flags > 99) AS none, count(*) AS n, hash(1) % 100 AS h FROM catalog"
    )
    table = read(export(catalog, tmp_path, text, kind))
    assert int(table["good"][0]) == 10
    assert int(table["n"][0]) == 40
    assert float(table["w"][0]) == 999.9
    if kind not in ("parquet", "csv"):  # astropy takes null integers for NaN there, or reads texts
        assert table["none"].tolist() == [None]


def test_sums_are_plain_numbers_in_memory(catalog: Catalog, tmp_path: Path) -> None:
    answer = query(catalog.url, "SELECT sum(flags) AS s, sum(1::HUGEINT << 70) AS huge FROM catalog")
    assert answer.to_arrow().schema.field("s").type == pa.int64()
    assert answer.to_arrow()["huge"].to_pylist() == [40 << 70]
    for kind in ("fits", "vot"):
        with pytest.raises(InputError, match=r"'huge' .* beyond 64 bits.*CAST\(\"huge\" AS VARCHAR\)"):
            query(catalog.url, "SELECT sum(1::HUGEINT << 70) AS huge FROM catalog", to=str(tmp_path / f"a.{kind}"))
    query(catalog.url, "SELECT sum(1::HUGEINT << 70) AS huge FROM catalog", to=str(tmp_path / "a.parquet"))
    assert pq.read_table(tmp_path / "a.parquet")["huge"].to_pylist() == [40 << 70]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_type_of_duckdb_is_written_or_refused_in_a_sentence(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    every = query(catalog.url, "SELECT * EXCLUDE (uhugeint, time_tz) FROM test_all_types()").to_arrow()
    written: list[str] = []
    refused: list[tuple[str, str]] = []
    for number, name in enumerate(every.column_names):
        target = tmp_path / f"{number}.{kind}"
        try:
            write_rows(every.select([name]), str(target))
            written.append(name)
        except InputError as error:
            refused.append((name, str(error)))
    assert all(f"'{name}'" in sentence and "write " in sentence for name, sentence in refused)
    assert len(list(tmp_path.iterdir())) == len(written)
    assert len(written) >= (40 if kind == "parquet" else 20)
    assert {"bool", "bigint", "double", "uuid", "small_enum", "timestamp_ns"} <= set(written)
    with pytest.raises(InputError, match="UHUGEINT"):
        query(catalog.url, "SELECT uhugeint FROM test_all_types()")


def test_moments_are_utc_in_iso(catalog: Catalog, tmp_path: Path) -> None:
    text = "SELECT TIMESTAMPTZ '2026-11-28 12:30:00.25+02' AS t, DATE '2026-11-28' AS d, TIME '01:02:03' AS h"
    for kind in ("fits", "vot", "ecsv", "csv"):
        table = read(export(catalog, tmp_path, text, kind))
        assert table["t"].tolist() == ["2026-11-28T10:30:00.250000Z"]
        assert table["d"].tolist() == ["2026-11-28"]
        (tmp_path / f"out.{kind}").unlink()
    assert query(catalog.url, text).to_qtable()["t"].tolist() == ["2026-11-28T10:30:00.250000Z"]


def test_unsigned_numbers_beyond_int64(catalog: Catalog, tmp_path: Path) -> None:
    text = "SELECT (18446744073709551615 - i)::UBIGINT AS h FROM range(3) t(i)"
    wanted = [2**64 - 1, 2**64 - 2, 2**64 - 3]
    assert read(export(catalog, tmp_path, text, "fits"))["h"].tolist() == wanted
    with pytest.raises(InputError, match=r"'h' .* beyond 2\^63, which VOTable cannot hold"):
        query(catalog.url, text, to=str(tmp_path / "a.vot"))
    assert query(catalog.url, text).to_qtable()["h"].tolist() == wanted


@pytest.mark.parametrize("kind", [None, *FORMATS])
def test_equal_names_are_one_sentence(catalog: Catalog, tmp_path: Path, kind: str | None) -> None:
    to = None if kind is None else str(tmp_path / f"a.{kind}")
    for text in ("SELECT x, x FROM catalog", "SELECT a.*, b.x FROM catalog a JOIN catalog b USING (object_id)"):
        with pytest.raises(InputError, match=r"two columns are named 'x'.*SELECT x AS x2"):
            query(catalog.url, text, to=to)
    assert not list(tmp_path.iterdir())


def test_names_that_differ_in_case_and_flattened_names(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not tell apart by case"):
        query(catalog.url, 'SELECT 1 AS ra, 2 AS "RA"', to=str(tmp_path / "a.fits"))
    with pytest.raises(InputError, match="two columns are named 'v_0'"):
        query(catalog.url, "SELECT [1, 2]::FLOAT[2] AS v, 1 AS v_0", to=str(tmp_path / "a.csv"))
    assert main(["query", catalog.url, "SELECT x, x FROM catalog", "--to", str(tmp_path / "a.vot")]) == 2


TEXTS = ["Köln", "plain", "100 %", "end ", "a\0b", "line\nbreak", "🦆", "", 'it\'s "so" & <so>']


def test_texts_of_all_letters(catalog: Catalog, tmp_path: Path) -> None:
    table = pa.table({"größe": TEXTS, "b": ["x"] * len(TEXTS), "n": pa.array(range(len(TEXTS)))})
    write_rows(table, str(tmp_path / "a.fits"))
    found = read(tmp_path / "a.fits")
    assert [unquote(text) if text else "" for text in found[ascii_text("größe")].tolist()] == [*TEXTS[:7], "", TEXTS[8]]
    assert "percent-encoded" in found[ascii_text("größe")].description
    assert found["b"].description is None
    with pytest.raises(InputError, match=r"'größe' has texts with a NUL letter"):
        write_rows(table, str(tmp_path / "a.vot"))
    write_rows(table.filter(pa.array(["\0" not in text for text in TEXTS])), str(tmp_path / "a.vot"))
    found = Table.read(tmp_path / "a.vot", use_names_over_ids=True)
    assert found["größe"].tolist() == [text for text in TEXTS if "\0" not in text]
    for kind in ("parquet", "ecsv"):
        write_rows(table, str(tmp_path / f"a.{kind}"))
    assert pq.read_table(tmp_path / "a.parquet")["größe"].to_pylist() == TEXTS


def test_an_image_with_other_letters_goes_to_every_format(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), schema([]), {"source": "s"})
    rows = unit_rows("Köln_0", 5).select(["object_id", "image", "tile", "x", "y", "ra", "dec", "primary", "flags"])
    catalog.write_part("Köln_0", "a" * 16, rows)
    (tmp_path / "o").mkdir()
    for kind in FORMATS:
        table = read(export(catalog, tmp_path / "o", "SELECT * FROM catalog", kind))
        assert {unquote(str(text)) for text in table["image"]} == {"Köln"}
        (tmp_path / "o" / f"out.{kind}").unlink()
    assert is_plain("Koeln")
    assert not is_plain("Köln")


def test_one_very_long_text(tmp_path: Path) -> None:
    table = pa.table({"s": ["a" * 4_000_000, *["b"] * 999]})
    for kind in ("fits", "vot"):
        with pytest.raises(InputError, match=r"'s' has a text of 4000000 letters.*left\(s, 200\)"):
            write_rows(table, str(tmp_path / f"a.{kind}"))
    write_rows(table, str(tmp_path / "a.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("kind", FORMATS)
def test_empty_answers_have_their_columns(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    table = read(export(catalog, tmp_path, "SELECT object_id, ra, label, now() AS t FROM catalog LIMIT 0", kind))
    assert len(table) == 0
    assert table.colnames == ["object_id", "ra", "label", "t"]


@pytest.mark.parametrize("kind", ["fits", "vot"])
def test_infinities_vectors_and_small_types(tmp_path: Path, kind: str) -> None:
    vector = pa.array([[1.0, None, np.inf], None], pa.list_(pa.float32(), 3))
    table = pa.table(
        {
            "f": pa.array([np.inf, -np.inf], pa.float64()),
            "v": vector,
            "b": pa.array([[True, False], [False, None]], pa.list_(pa.bool_(), 2)),
            "i8": pa.array([-128, 127], pa.int8()),
            "u16": pa.array([65535, None], pa.uint16()),
            "u32": pa.array([2**32 - 1, 0], pa.uint32()),
            "f16": pa.array(np.array([0.5, np.nan], np.float16)),
        }
    )
    write_rows(table, str(tmp_path / f"a.{kind}"))
    found = read(tmp_path / f"a.{kind}")
    assert found["f"].tolist() == [np.inf, -np.inf]
    np.testing.assert_array_equal(MaskedColumn(found["v"]).filled(np.nan), [[1, np.nan, np.inf], [np.nan] * 3])
    assert np.asarray(found["b"])[0].tolist() == [True, False]
    assert found["i8"].tolist() == [-128, 127]
    assert found["u16"].tolist() == [65535, None]
    assert found["u32"].tolist() == [2**32 - 1, 0]


@pytest.mark.parametrize("kind", ["fits", "vot", "parquet", "ecsv"])
def test_units_ucds_descriptions_and_the_frame(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    path = export(catalog, tmp_path, "SELECT ra, dec, flux AS f, avg(flux) OVER () AS mean, x FROM catalog", kind)
    table = read(path)
    assert table["ra"].unit == u.deg
    assert table["f"].unit == u.nJy
    assert table["mean"].unit is None
    assert table["f"].description == "Flux"
    assert table["x"].unit == u.pix
    if kind == "fits":
        header = fits.getheader(path, 1)
        assert (header["TUNIT3"], header["TUCD3"], header["TCOMM3"]) == ("nJy", "phot.flux", "Flux")
        assert "TUNIT4" not in header
    if kind == "vot":
        document = parse(path, verify="exception")
        assert document.get_coosys_by_id("icrs").system == "ICRS"
        fields = {field.name: field for field in document.get_first_table().fields}
        assert (fields["ra"].ref, fields["f"].ref) == ("icrs", None)
        assert fields["f"].ucd == "phot.flux"


def asked(catalog: Catalog) -> tuple[str, dict[str, Any]]:
    text = "SELECT ra, 'it''s' AS \"größe\" -- comment\nFROM catalog WHERE flags = 0 AND " + " AND ".join(
        ["ra > 0"] * 30
    )
    return text, query(catalog.url, text).to_qtable().meta


def test_an_answer_tells_where_it_is_from(catalog: Catalog, tmp_path: Path) -> None:
    text, meta = asked(catalog)
    run = catalog.runs()[0]["run_id"]
    assert meta["runs"] == [run]
    assert meta["sql"] == text
    assert meta["flags"]["EDGE"] == {
        "bit": 1,
        "meaning": "part of the stamp, or the outline, reaches the border of the image",
    }
    assert meta["creator"].startswith("astroml-plugin ")
    assert isinstance(query(catalog.url, text).to_qtable(), QTable)

    header = fits.getheader(export(catalog, tmp_path, text, "fits"), 1)
    assert header["SQL"] == text.replace("\n", "\\n").replace("ö", "\\u00f6").replace("ß", "\\u00df").replace(
        '"', '\\"'
    )
    assert (header["RUN1"], header["FLAG1"][:7]) == (run, "1 EDGE:")
    assert Table.read(tmp_path / "out.fits").meta["CATALOG"] == catalog.url
    (tmp_path / "out.fits").unlink()

    document = parse(export(catalog, tmp_path, text, "vot"), verify="exception")
    infos = [(info.name, info.value) for info in document.resources[0].infos]
    assert ("run", run) in infos
    assert ("sql", text) in infos
    (tmp_path / "out.vot").unlink()

    for kind in ("ecsv", "parquet"):
        meta = read(export(catalog, tmp_path, text, kind)).meta
        assert (meta["runs"], meta["sql"], meta["flags"]["MASKED"]["bit"]) == ([run], text, 2)
        (tmp_path / f"out.{kind}").unlink()


def test_every_sql_comes_back_from_a_fits_header(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    letters = np.array(list("ab '\"&\\/%=\n\tö🦆;()<>'/'/"))
    for size in generator.integers(1, 300, 60):
        text = "".join(generator.choice(letters, size)) + "."
        write_rows(with_provenance(pa.table({"x": [1.0]}), {"sql": text}), str(tmp_path / "a.fits"))
        stored = fits.getheader(tmp_path / "a.fits", 1)["SQL"]
        assert (json.loads(f'"{stored}"') if "\\" in stored else stored) == text


def test_bundles_and_versions_of_the_runs(tmp_path: Path) -> None:
    identity = {"source": "abc", "bundles": {"lens": "f" * 64}}
    catalog = Catalog.create(str(tmp_path / "c"), schema([]), identity)
    catalog.start_run({"source": "https://me:secret@host/s.zarr", "versions": {"astroml-plugin": "0.0.1"}})
    catalog.start_run({"kind": "compact"})
    query(catalog.url, cone=(1, 2, 3), to=str(tmp_path / "a.fits"))
    header = fits.getheader(tmp_path / "a.fits", 1)
    assert header["BUNDLE1"] == "lens sha256:" + "f" * 64
    assert header["SOURCE"] == "https://***@host/s.zarr"
    assert header["RUNVER1"] == "0.0.1"
    assert header["CONE"] == "[1.0, 2.0, 3.0]"
    assert "RUN2" not in header


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("SELECT * EXCLUDE (flux, x, y), flux / 1000 AS flux FROM catalog", {"flux": None, "ra": "deg"}),
        ("SELECT * REPLACE (flux / 1000 AS flux) FROM catalog", {"flux": None, "ra": "deg"}),
        ("SELECT * RENAME (flux AS ra2) FROM catalog", {"ra2": None}),
        ("WITH catalog AS (SELECT 1 AS flux) SELECT flux FROM catalog", {"flux": None}),
        ("SELECT flux FROM catalog AS c(object_id, image, tile, x, y, flux)", {"flux": None}),
        ("SELECT sum(flux) AS flux, max(ra) AS ra FROM catalog", {"flux": None, "ra": None}),
        ("SELECT FLUX, flux AS f, c.ra FROM catalog c", {"flux": "nJy", "f": "nJy", "ra": "deg"}),
        ("SELECT flux FROM catalog UNION ALL SELECT ra FROM catalog", {"flux": None}),
        ("SELECT COLUMNS('flu.*') / 2 FROM catalog", {"flux": None}),
        ("SELECT x AS flux, flux AS x FROM catalog", {"flux": "pix", "x": "nJy"}),
    ],
)
def test_only_columns_passed_through_have_a_unit(catalog: Catalog, text: str, units: dict[str, str | None]) -> None:
    found = query(catalog.url, text, limit=2)
    known = {column.name: column.unit or None for column in found.columns}
    assert {name: known.get(name, "absent") for name in units} == units


@pytest.mark.parametrize("reader", ["parquet", "parquet.votable"])
def test_parts_and_answers_are_read_without_warnings(catalog: Catalog, tmp_path: Path, reader: str) -> None:
    query(catalog.url, to=str(tmp_path / "a.parquet"))
    part = next(Path(catalog.url).glob("parts/*/*.parquet"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (part, tmp_path / "a.parquet"):
            table = Table.read(path, format=reader)
            assert table["primary"].description == "True on one row of an object, also where images overlap"


def test_a_refused_export_leaves_the_old_file(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    query(catalog.url, to=str(path))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"'l' is a list.*CAST\(\"l\" AS FLOAT\[n\]\)"):
        query(catalog.url, "SELECT [1, 2] AS l FROM catalog", to=str(path))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.fits"]


def test_lists_of_rank_tell_where_they_are_from(catalog: Catalog, tmp_path: Path) -> None:
    rank(catalog.url, top=3, score="flux", to=str(tmp_path / "a.fits"))
    header = fits.getheader(tmp_path / "a.fits", 1)
    assert (header["MADEBY"], header["BY"], header["TOP"]) == ("rank", "flux", "3")
    assert header["RUN1"] == catalog.runs()[0]["run_id"]
    assert "SQL" not in header  # those of single steps
    rank(catalog.url, top=3, score="flux", to=str(tmp_path / "a.vot"))
    assert parse(tmp_path / "a.vot", verify="exception").get_first_table().nrows == 3


def test_outlines_of_an_image_with_other_letters(tmp_path: Path) -> None:
    row = {"label": 1, "object_id": 7, "tile": "Köln_0", "label_id": 1}
    objects = pa.Table.from_pylist([row], schema=OBJECTS_SCHEMA)
    LabelImage(np.ones((4, 4), np.uint32), objects, "Köln", Box(0, 0, 4, 4), None, (), 0).write_fits(
        str(tmp_path / "a.fits")
    )
    with fits.open(tmp_path / "a.fits") as opened:
        opened.verify("exception")
        assert json.loads(f'"{opened[0].header["IMAGE"]}"') == "Köln"
        assert unquote(opened[1].data["tile"][0]) == "Köln_0"


def test_json_has_plain_numbers_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    finish(SimpleNamespace(json=True), {"a": np.float32(0.5), "b": float("nan"), "c": np.int64(3)}, "line")
    assert json.loads(capsys.readouterr().out) == {"a": 0.5, "b": None, "c": 3}


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("a" * 80, ["fits"], "has 80 letters, and FITS holds 68: give it a shorter one"),
        ("ä" * 20, ["fits"], "has 120 letters, percent-encoded, and FITS holds 68"),
        (
            "a\nb",
            ["csv", "ecsv", "vot"],
            "has a line end or control letter, which .* cannot hold: give it another name",
        ),
        ("a\u2028b", ["csv", "ecsv", "vot"], "has a line end or control letter"),
    ],
)
def test_names_that_a_format_cannot_hold(
    catalog: Catalog, tmp_path: Path, name: str, kinds: list[str], words: str
) -> None:
    text = f'SELECT 1 AS "{name}", 2 AS z'
    for kind in ("fits", "vot", "ecsv", "csv", "parquet"):
        to = tmp_path / f"a.{kind}"
        if kind in kinds:
            with pytest.raises(InputError, match=words):
                query(catalog.url, text, to=str(to))
            assert not to.exists()
        else:
            query(catalog.url, text, to=str(to))
    assert query(catalog.url, text, to=str(tmp_path / "b.parquet")).to_arrow().column_names == [name, "z"]


def test_names_of_other_letters_stand_in_votable(catalog: Catalog, tmp_path: Path) -> None:
    query(catalog.url, 'SELECT 1 AS "Größe", 2 AS "日本", 3 AS "a b"', to=str(tmp_path / "a.vot"))
    found = Table.read(tmp_path / "a.vot", format="votable", use_names_over_ids=True)
    assert found.colnames == ["Größe", "日本", "a b"]


def test_times_of_day_in_a_zone_are_refused(catalog: Catalog) -> None:
    with pytest.raises(InputError, match=r"'t' is a TIME WITH TIME ZONE.*CAST\(\"t\" AS VARCHAR\)"):
        query(catalog.url, "SELECT TIMETZ '12:00:00+05' AS t")


def test_the_verb_takes_names_of_units(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """A name was taken for its letters: the answer was empty."""
    rows = query(catalog.url, units="im_0").rows
    assert main(["query", catalog.url, "SELECT count(*) AS n FROM catalog", "--units", "im_0,im_1", "--json"]) == 0
    assert rows > 0
    assert main(["query", catalog.url, "--units", "im_0,im_1", "--limit", "1000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 2 * rows


@pytest.mark.parametrize("values", [[1, None, 3], ["a", None, "b\n\nc"], [None, 0.5, 1.0], [True, None, False]])
def test_a_csv_of_one_column_keeps_its_rows(tmp_path: Path, values: list[Any]) -> None:
    write_rows(pa.table({"v": values}), str(tmp_path / "o.csv"))
    found = read(tmp_path / "o.csv")["v"]
    assert [None if value is np.ma.masked else str(value).lower() for value in found] == [
        None if value is None else str(value).lower() for value in values
    ]


def test_texts_that_readers_of_csv_would_end_are_refused(tmp_path: Path) -> None:
    table = pa.table({"v": ["a\0b"]})
    with pytest.raises(InputError, match=r"'v' has texts with a NUL letter.*replace\(v, chr\(0\), ''\)"):
        write_rows(table, str(tmp_path / "o.csv"))
    write_rows(table, str(tmp_path / "o.ecsv"))
    assert read(tmp_path / "o.ecsv")["v"].tolist() == ["a\0b"]
