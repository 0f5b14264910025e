"""Whole catalogs in the files of others: streamed, all rows, the same as `query` gives; MOC and region files."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse, validate
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table
from astropy.table.meta import get_header_from_yaml, get_yaml_from_table
from catalogs import foreign_catalog, small_catalog, unit_rows

from astroml_plugin.catalog import COMMON_COLUMNS, Catalog, Column, schema
from astroml_plugin.catalog.export import extents, headers
from astroml_plugin.catalog.export.extents import TableRows, extents_of
from astroml_plugin.catalog.hats import library
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.streamed import CatalogRows
from astroml_plugin.catalog.write import write_streamed
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.training.bundle import ModelBundle
from tests.test_objects_buckets import survey_of, two_images
from workflows.cli import main
from workflows.export import export


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return foreign_catalog(tmp_path_factory.mktemp("foreign") / "cat")


def read(path: Path) -> Table:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*contains NULL.*")  # astropy asks for nulls of booleans
        return Table.read(path, format={"vot": "votable"}.get(path.suffix[1:], path.suffix[1:]))


@pytest.mark.parametrize(("to", "suffix"), [("votable", "vot"), ("fits", "fits"), ("parquet", "parquet")])
def test_all_rows_of_a_foreign_catalog(
    foreign: Catalog, tmp_path: Path, to: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extents, "_BYTES", 300)  # a few rows at a time
    path = tmp_path / f"a.{suffix}"
    result = export(foreign.url, to=to, out=path)
    assert (result.rows, result.notes) == (10, ())
    wanted = query(foreign.url, "SELECT * EXCLUDE (_healpix_29) FROM catalog").to_arrow()
    found = pq.read_table(path) if suffix == "parquet" else None
    if found is not None:
        assert found.schema.names == wanted.schema.names
        assert str(found.sort_by("object_id").to_pydict()) == str(wanted.sort_by("object_id").to_pydict())
        return  # astropy stops at null vectors of Parquet
    table = read(path)
    table.sort("object_id")
    ids = sorted(wanted["object_id"].to_pylist())
    assert table["object_id"].tolist() == ids
    assert table["object_id"].dtype.kind == "i"
    assert table["ra"].unit == "deg"
    order = {number: row for row, number in enumerate(table["object_id"].tolist())}
    row = table[order[2**63 - 1]]
    assert unquote(str(row["label"])) == "größer"
    assert np.asarray(row["latent"]).tolist() == [1, 2, 3]
    assert (row["small"], row["flux"], row["dec"]) == (0, 1.5, 90.0)
    assert table[order[2**53 + 1]]["small"] == 255
    assert np.ma.is_masked(table["small"][order[0]]) or np.isnan(float(table["small"][order[0]]))
    assert np.isinf(table["flux"][order[-5]])
    assert np.isnan(np.ma.filled(table["ra"].astype(float), np.nan)[order[10]])


def test_a_votable_is_valid_and_tells_frame_flags_and_origin(foreign: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "a.vot"
    export(foreign.url, to="votable", out=path)
    assert validate(str(path), output=None)
    document = parse(path, verify="exception")
    infos = [(info.name, info.value) for info in document.resources[0].infos]
    assert ("flag", "1 EDGE: part of the stamp, or the outline, reaches the border of the image") in infos
    assert document.get_first_table().nrows == 10
    fields = {field.name: field for field in document.get_first_table().fields}
    assert (fields["ra"].ref, fields["flux"].ucd, str(fields["flux"].unit)) == ("icrs", "phot.flux", "nJy")
    assert fields["label"].description == "Klasse «größer»"
    lines = path.read_text().split("base64")[1].splitlines()[1:-5]
    assert {len(line) for line in lines[:-1]} == {76}  # one stream, not several with padding between


def test_the_header_that_astropy_reads_is_as_its_own(tmp_path: Path) -> None:
    kinds = {"f": "float32", "v": "float32[3]", "t": "string", "no": "bool"}
    told = {"sql": "SELECT 'é: # x'", "cone": [1.5, -1e-07, 2.0], "limit": None, "when": "2026-01-01T00:00:00Z"}
    columns = tuple(
        Column(name, kind, "nJy" if name == "f" else "", "phot.flux" if name == "f" else "", f"{name}: 'a' # b, {{c}}")
        for name, kind in kinds.items()
    )
    text = headers._astropy_yaml(columns, (("float32", 0), ("float32", 3), ("string", 0), ("bool", 0)), told)
    own = Table(np.zeros(0, [("f", "f4"), ("v", "f4", 3), ("t", "U1"), ("no", "?")]), meta=told)
    for column in columns:
        own[column.name].info.description = column.description
    own["f"].info.unit, own["f"].info.meta = "nJy", {"ucd": "phot.flux"}
    assert get_header_from_yaml(text.split("\n")) == get_header_from_yaml(get_yaml_from_table(own))


def test_moments_refer_to_a_time_system(tmp_path: Path) -> None:
    from datetime import datetime

    table = pa.table({"t": pa.array([datetime(2026, 11, 29)]), "utc": [1]})
    write_streamed(TableRows.of(table), str(tmp_path / "a.vot"), "vot")
    document = parse(tmp_path / "a.vot", verify="exception")
    assert validate(str(tmp_path / "a.vot"), output=None)
    assert document.get_first_table().get_field_by_id("t").ref == "utc"
    assert [system.timescale for system in document.iter_timesys()] == ["UTC"]


def test_fits_says_the_frame(foreign: Catalog, tmp_path: Path) -> None:
    export(foreign.url, to="fits", out=tmp_path / "a.fits", columns=("object_id", "ra", "dec", "flags"))
    with fits.open(tmp_path / "a.fits") as opened:
        opened.verify("exception")
        header = opened[1].header
    assert (header["RADESYS"], header["TFIELDS"], header["TUCD2"]) == ("ICRS", 4, "pos.eq.ra;meta.main")
    assert header["FLAG1"].startswith("1 EDGE")


def test_columns_and_conditions(foreign: Catalog, tmp_path: Path) -> None:
    where = "flags & 1 = 0 AND flux IS NOT NULL -- größer"
    result = export(foreign.url, to="parquet", out=tmp_path / "a.parquet", columns=("label", "ra"), where=where)
    found = pq.read_table(tmp_path / "a.parquet")
    wanted = query(foreign.url, f"SELECT label, ra FROM catalog WHERE {where}").to_arrow()
    assert (result.rows, found.num_rows, found.column_names) == (6, wanted.num_rows, ["label", "ra"])
    assert sorted(map(str, found["label"].to_pylist())) == sorted(map(str, wanted["label"].to_pylist()))
    for bad in ({"columns": ("nothing",)}, {"where": "nothing = 1"}, {"where": "1) FROM catalog; SELECT (1"}):
        with pytest.raises(InputError):
            export(foreign.url, to="parquet", out=tmp_path / "b.parquet", **bad)
    assert not (tmp_path / "b.parquet").exists()


def test_a_refused_export_is_one_sentence(foreign: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    cases = (
        (foreign.url, "onnx", "a catalog is exported to hats"),
        (survey.url, "fits", "a survey is exported to moc, reg"),
        ("lens", "hats", "a bundle is exported to onnx"),
        (str(tmp_path / "nothing"), "fits", "no catalog or survey at"),
    )
    for source, to, words in cases:
        assert main(["export", source, "--to", to, "--out", str(tmp_path / "x")]) == 2
        assert words in capsys.readouterr().err
    assert main(["export", foreign.url, "--to", "fits"]) == 2
    assert "Give --out" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_option_that_would_do_nothing_is_refused(foreign: Catalog, tmp_path: Path) -> None:
    survey, out = survey_of(tmp_path / "s", two_images()), tmp_path / "x"
    cases: tuple[tuple[str, str, dict[str, object], str], ...] = (
        (foreign.url, "fits", {"order": 5}, "--order would do nothing for a catalog to fits"),
        (foreign.url, "votable", {"extends": "a", "margin": 3.0}, "--margin, --extends would"),
        (foreign.url, "reg", {"columns": ("x",)}, "--columns would"),
        (foreign.url, "reg", {"where": "flags < 0"}, "no row meets --where"),
        (foreign.url, "reg", {"survey": survey.url, "where": "flags = 0"}, "--where would do nothing for the tiles"),
        (survey.url, "reg", {"where": "flags = 0"}, "--where would do nothing for a survey"),
        (survey.url, "moc", {"survey": survey.url}, "--survey would"),
        ("lens", "onnx", {"where": "flags = 0"}, "--where would do nothing for a bundle"),
        (foreign.url, "fits", {"variance": False}, "--no-variance would"),
        (foreign.url, "reg", {"survey": survey.url}, "not of the survey"),
        (foreign.url, "fits", {"annotations": ("kinds",)}, "no annotation 'kinds', there is none"),
    )
    for source, to, options, words in cases:
        with pytest.raises(InputError, match=re.escape(words)):
            export(source, to=to, out=out, **options)
    assert not out.exists()


def test_moc_and_hats_need_their_extra(foreign: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("mocpy", "hats", "hats_import"):
        monkeypatch.setitem(sys.modules, name, None)
    for to in ("moc", "hats"):
        with pytest.raises(InputError, match=r"extra `hats`"):
            export(foreign.url, to=to, out=tmp_path / "x")
    with pytest.raises(InputError, match="cannot name a HATS collection"):
        library.check_name("größer")


def test_regions_of_rows_and_of_tiles(foreign: Catalog, tmp_path: Path) -> None:
    result = export(foreign.url, to="reg", out=tmp_path / "a.reg")
    assert (result.rows, result.notes) == (8, ("2 rows without a position on the sky are left out",))
    lines = (tmp_path / "a.reg").read_text().splitlines()
    assert lines[:2] == ["# Region file format: DS9 version 4.1", "icrs"]
    assert f"point(0.00000000,90.00000000) # point=circle text={{{2**63 - 1}}}" in lines
    assert len(lines) == 10
    survey = survey_of(tmp_path / "s", two_images())
    outlines = list(survey.outlines())
    assert export(survey.url, to="reg", out=tmp_path / "b.reg").rows == len(outlines) == len(survey)
    first = (tmp_path / "b.reg").read_text().splitlines()[2]
    numbers = np.array(re.findall(r"[\d.-]+(?=[,)])", first.split("#")[0]), float).reshape(4, 2)
    np.testing.assert_allclose(numbers, np.stack([outlines[0].ra, outlines[0].dec], 1), atol=1e-7)
    assert first.endswith(f"text={{{outlines[0].name}}}")


def test_a_catalog_without_positions_has_no_sky(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "c"), schema([]), {"source": "s"})
    names = [column.name for column in COMMON_COLUMNS]
    catalog.write_part("im_0", "a" * 16, unit_rows("im_0", 4, wcs=False).select(names))
    with pytest.raises(InputError, match="none of the 4 rows has a position on the sky"):
        export(catalog.url, to="reg", out=tmp_path / "a.reg")
    assert export(catalog.url, to="fits", out=tmp_path / "a.fits").rows == 4
    assert np.isnan(fits.getdata(tmp_path / "a.fits", 1)["ra"]).all()


def test_rows_that_change_between_the_readings_are_told(tmp_path: Path) -> None:
    class Growing(TableRows):
        def batches(self, columns: object = None) -> object:
            yield from super().batches(columns)  # type: ignore[arg-type]
            if columns is None:
                yield from super().batches()

    class Longer(TableRows):
        def batches(self, columns: object = None) -> object:
            table = pa.table({"s": ["a" if columns else "abc"]})
            yield from table.to_batches()

    for kind in ("fits", "vot", "parquet"):
        path = tmp_path / f"a.{kind}"
        with pytest.raises(CorruptError, match="changed while they were read"):
            write_streamed(Growing(pa.table({"s": ["a"]})), str(path), kind)
        if kind != "parquet":
            with pytest.raises(CorruptError, match="changed while they were read"):
                write_streamed(Longer(pa.table({"s": ["a"]})), str(path), kind)
        assert not path.exists()


def test_a_number_that_stands_for_null_is_searched_over_all_batches() -> None:
    low, high = -(2**63), 2**63 - 1
    table = pa.table({"a": pa.chunked_array([[low, high], [None, low + 1], [low + 2]], pa.int64())})
    count, (extent,) = extents_of(TableRows(table), "FITS")
    assert count == 5
    assert extent.nulls
    assert extent.free is not None
    assert not set(extent.free.tolist()) & {low, high, low + 1, low + 2}


def test_parts_are_grouped_in_the_same_way_each_time(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=7)
    rows = CatalogRows.of(catalog.url)
    groups = rows.groups(50)
    assert groups == CatalogRows.of(catalog.url).groups(50)
    assert [len(group) for group in groups] == [3, 3, 1]
    assert sum(groups, ()) == rows.paths
    assert rows.having(["x"], groups[2]).count() == 20


@pytest.mark.parametrize("name", ["ellipticity", "lens", "morphology", "segmentation", "anomaly"])
def test_each_declared_column_has_words_of_the_ucd_list(name: str) -> None:
    from astroml_plugin.inference.detecting import LABEL

    columns: list[Column] = [*COMMON_COLUMNS, LABEL, *ModelBundle.load(name).task().columns()]
    bad = [
        column.name
        for column in columns
        if not column.description or not check_ucd(column.ucd, check_controlled_vocabulary=True)
    ]
    assert not bad


def test_a_survey_without_a_wcs_has_no_outline(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", {"a": None})
    with pytest.raises(InputError, match="no outline on the sky"):
        export(survey.url, to="reg", out=tmp_path / "a.reg")
    both = survey_of(tmp_path / "both", {"nowhere": None, **two_images()})
    result = export(both.url, to="reg", out=tmp_path / "b.reg")
    assert 0 < result.rows < len(both)
    assert result.notes[0].startswith(f"{len(both) - result.rows} tiles without a place on the sky are left out")
