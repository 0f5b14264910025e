"""Pages of runs: foreign catalogs give a page that says what is missing, and nothing of others is executed or told."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog, Column, schema
from astroml_plugin.catalog.beside import FAILURES_SCHEMA
from astroml_plugin.core.errors import InputError
from astroml_plugin.reporting import charts, html, interactive
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Commands, Maker, Missing, Page, Section, Table, composed
from astroml_plugin.reporting.run import makers
from astroml_plugin.reporting.run.columns import histograms
from astroml_plugin.reporting.run.sky import cells_of
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.subjects import page_of
from astroml_plugin.sources.survey import Survey
from tests import universe
from tests.catalogs import IDENTITY, foreign_catalog
from tests.ranked_catalogs import stamps_and_catalog
from workflows.cli import main
from workflows.report import report

NASTY = "</script><script>alert(1)</script><b onload=x> \"q\" 'a' $\\frac{ & `code` {x}"


@pytest.fixture(autouse=True)
def errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """No section fails unseen."""
    monkeypatch.setenv("ASTROML_DEBUG", "1")


def made(folder: Path, columns: Sequence[Column], rows: dict[str, Any], count: int) -> Catalog:
    """A finished catalog of one unit with these rows; positions and flags are filled in where they are not given."""
    catalog = Catalog.create(str(folder / "cat"), schema(columns), {**IDENTITY, "bundles": {"b": "1"}})
    run = catalog.start_run({"kind": "infer", "stages": {"read": 1.0}})
    nothing = [None] * count
    given = {
        **{"object_id": np.arange(count), "image": ["im"] * count, "tile": ["im_0"] * count},
        **{"x": nothing, "y": nothing, "ra": nothing, "dec": nothing},
        **{"primary": np.ones(count, bool), "flags": np.zeros(count, np.int32)},
        **rows,
    }
    kinds = {field.name: field.type for field in catalog.schema}
    table = pa.table({name: pa.array(values, kinds[name]) for name, values in given.items()})
    catalog.commit_manifest(run, [catalog.write_part("im_0", "a" * 16, table)])
    catalog.finish_run(run, {"stages": {"read": 1.0, "wait": 0.5}})
    return catalog


def test_a_wrong_score_is_refused_by_its_option_before_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = made(tmp_path, [Column("snr", "float64")], {"snr": np.ones(3)}, 3).url
    monkeypatch.setattr(RunSubject, "opened", None)
    with pytest.raises(InputError, match="choose by --by COLUMN"):
        page_of(url, ReportOptions(by="nothing"))


def magnitudes(url: str) -> Section:
    return next(one for one in page_of(url, ReportOptions()).sections if one.title == "Counts and magnitudes")


def test_fluxes_without_a_zero_point_are_instrumental(tmp_path: Path) -> None:
    columns = [
        Column("flux_r", "float32", "nJy", "phot.flux.density"),
        Column("flux_r_own", "float32", "", "phot.flux"),
        Column("flux_r_own_err", "float32", "", "stat.error;phot.flux"),
    ]
    own = {"flux_r": [None] * 50, "flux_r_own": np.full(50, 100.0), "flux_r_own_err": np.ones(50)}
    section = magnitudes(made(tmp_path / "own", columns, own, 50).url)
    assert "No zero point is known" in section.text
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [table.rows[0][0], table.rows[0][4]] == ["flux_r_own", "-5.00"]
    section = magnitudes(made(tmp_path / "njy", columns, {**own, "flux_r": np.full(50, 100.0)}, 50).url)
    assert "No zero point" not in section.text
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [table.rows[0][0], table.rows[0][4]] == ["flux_r", "26.40"]


def test_of_many_fluxes_the_totals_of_all_bands_are_drawn(tmp_path: Path) -> None:
    names = [f"flux_{kind}_{band}" for band in "grizy" for kind in ("iso", "aper", "total")]
    columns = [Column(name, "float32", "nJy", "phot.flux.density") for name in names]
    section = magnitudes(made(tmp_path, columns, dict.fromkeys(names, np.full(50, 100.0)), 50).url)
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == [f"flux_total_{band}" for band in "grizy"]
    assert "10 further columns are not drawn" in section.text


def next_steps(url: str) -> tuple[str, str]:
    section = next(one for one in page_of(url, ReportOptions()).sections if one.title == "What to do next")
    lines = [line for block in section.blocks if isinstance(block, Commands) for _, line in block.lines]
    return section.text, "\n".join(lines)


@pytest.mark.parametrize(
    ("flags", "words"), [([32, 48], "all have NO_PSF"), ([32, 16], "no single flag"), ([0, 32], "")]
)
def test_the_next_steps_leave_rows(tmp_path: Path, flags: list[int], words: str) -> None:
    url = made(tmp_path, [Column("snr", "float64")], {"snr": [1.0, 2.0], "flags": flags}, 2).url
    text, lines = next_steps(url)
    assert words in text
    assert ("clean.fits" in lines) is not bool(words)
    assert " show " not in lines  # its pixels are away


def test_the_next_steps_show_and_explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    universe.make_survey(str(tmp_path / "s.zarr"), shape=(100, 100))
    url = made(tmp_path, [Column("snr", "float64")], {"snr": [1.0, 2.0]}, 2).url
    monkeypatch.setattr(RunSubject, "source", Survey.open(str(tmp_path / "s.zarr")))
    _, lines = next_steps(url)
    assert f"show {url} --out objects.png" in lines
    assert f"explain {url} --by snr" in lines


def titles(page: Page) -> tuple[set[str], dict[str, str]]:
    return {section.title for section in page.sections}, {one.title: one.reason for one in page.missing}


def policy(text: str) -> str:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    return found[1]


def without_scripts(text: str) -> str:
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


# ---- foreign catalogs --------------------------------------------------------------------------------------------


def test_a_foreign_catalog_has_all_sections_and_its_numbers(tmp_path: Path) -> None:
    page = page_of(foreign_catalog(tmp_path / "cat").url)
    there, missing = titles(page)
    assert {"Sky", "Classes", "Columns of numbers", "Flags", "Near-duplicates", "Provenance"} <= there
    beside = {"Attributions", "Groups without labels", "Map of the latent space", "Drift"}
    assert set(missing) == {"Top of the list", "Failures", "Where the time went"} | beside
    sky = next(section for section in page.sections if section.title == "Sky")
    assert sky.text.startswith("8 objects in")  # primary, with a position: 0, 360, 12 degrees, and both poles
    text = html.document(page)
    assert "größer" in text


def test_an_empty_catalog_says_so(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "cat"), schema([]), IDENTITY)
    catalog.write_failures(pa.table([["a_0"], ["no such file"], [1], ["now"]], schema=FAILURES_SCHEMA))
    there, missing = titles(page_of(catalog.url))
    assert {"At a glance", "Failures", "Provenance", "What to do next"} <= there
    assert missing["Sky"] == "the catalog has no rows"
    text = html.document(page_of(catalog.url))
    assert "no such file" in text
    assert "script-src 'none'" in policy(text)  # nothing is drawn, so no library comes along


def test_one_row_without_a_position(tmp_path: Path) -> None:
    there, missing = titles(page_of(made(tmp_path, [Column("snr", "float32")], {"snr": [7.0]}, 1).url))
    assert "no object has a position" in missing["Sky"]
    assert "Top of the list" in there


def test_nan_everywhere(tmp_path: Path) -> None:
    nan = np.full(5, np.nan)
    columns = [Column("p_a", "float32"), Column("label", "string"), Column("flux", "float64", "nJy", "phot.flux")]
    rows = {"ra": nan, "dec": nan, "p_a": nan.astype(np.float32), "label": pa.nulls(5, pa.string()), "flux": nan}
    page = page_of(made(tmp_path, columns, rows, 5).url)
    there, missing = titles(page)
    assert "Columns of numbers" in there
    assert "no object has a positive flux" in missing["Counts and magnitudes"]
    html.document(page)


def test_two_thousand_classes_and_other_peoples_texts(tmp_path: Path) -> None:
    count = 6000
    labels = [NASTY if k % 3 == 0 else f"class {k % 2000}" for k in range(count)]
    columns = [Column("label", "string", "", "src.class", NASTY), Column("size", "float32", "<u>&$x_{", "", NASTY)]
    size = np.random.default_rng(0).lognormal(0, 3, count).astype(np.float32)
    text = html.document(page_of(made(tmp_path, columns, {"label": labels, "size": size}, count).url))
    assert "of 2,000" not in text  # every third is the nasty one, so there are 1,334
    assert "the 25 most frequent of" in text
    assert "<script>alert" not in text
    assert text.count("</script>") == text.count("<script")
    assert len(text) < 15e6
    for data in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
        json.loads(data)


def test_columns_that_no_task_here_writes(tmp_path: Path) -> None:
    columns = [Column("redshift", "float64"), Column("age", "int16"), Column("odd", "bool"), Column("v", "float32[3]")]
    vectors = pa.array([[1, 2, 3]] * 4, pa.list_(pa.float32(), 3))
    rows = {"redshift": [0.1, np.inf, np.nan, 2.0], "age": pa.array([1, 2, None, 4], pa.int16()), "odd": [True] * 4}
    page = page_of(made(tmp_path, columns, {**rows, "v": vectors}, 4).url, ReportOptions(by="redshift + 1", top=3))
    there, _ = titles(page)
    assert {"Columns of numbers", "Top of the list"} <= there
    assert any("No pictures" in getattr(block, "text", "") for one in page.sections for block in one.blocks)


def test_stamps_are_shown_with_their_pixels(tmp_path: Path) -> None:
    _, catalog = stamps_and_catalog(tmp_path, colour=True)
    page = page_of(catalog.url, ReportOptions(top=5))
    top = next(section for section in page.sections if section.title == "Top of the list")
    pictures = next(block for block in top.blocks if hasattr(block, "pictures"))
    assert len(pictures.pictures) == 5
    assert pictures.pictures[0].data.startswith(b"\x89PNG")


def test_credentials_stay_hidden(tmp_path: Path) -> None:
    catalog = Catalog.create(str(tmp_path / "cat"), schema([]), {**IDENTITY, "settings": {"key": "s3cretvalue1"}})
    catalog.finish_run(catalog.start_run({"kind": "infer", "source": "https://ana:hunter22@host.example/s.zarr"}))
    text = html.document(page_of(catalog.url))
    assert "hunter22" not in text
    assert "ana:" not in text


# ---- numbers -----------------------------------------------------------------------------------------------------


def test_histograms_count_every_row_once(tmp_path: Path) -> None:
    values = [0.0, 0.5, 1.0, 1.0, -3.0, 9.0, np.nan, np.inf, None]
    catalog = made(tmp_path, [Column("v", "float64")], {"v": pa.array(values, pa.float64())}, len(values))
    with RunSubject.opened(catalog.url, ReportOptions()) as subject:
        (found,) = histograms(subject, [("v", '"v"')], [np.linspace(0, 1, 3)])
    assert found.counts.tolist() == [1, 3]  # 1.0, the last edge, is within
    assert (found.below, found.above, found.missing) == (1, 1, 3)


def test_cells_hold_every_object_with_a_position(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ra, dec = (359.5 + rng.uniform(0, 1, 3000)) % 360, rng.uniform(-0.5, 0.5, 3000)
    rows = {"ra": ra, "dec": dec, "flags": (ra > 180).astype(np.int32)}
    catalog = made(tmp_path, [], rows, 3000)
    with RunSubject.opened(catalog.url, ReportOptions()) as subject:
        cells = cells_of(subject)
    assert cells.objects.sum() == 3000
    assert cells.flagged.sum() == (ra > 180).sum()
    assert 300 < len(cells.index) < 2500
    assert 0.9 < cells.area < 1.5


# ---- the page ----------------------------------------------------------------------------------------------------


def test_a_section_that_fails_lets_the_others_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASTROML_DEBUG")

    def broken(_: object) -> Section:
        raise ZeroDivisionError("oh")

    good = Section("good", "text")
    sections, missing = composed(None, [Maker("bad", broken), Maker("good", lambda _: good)])
    assert sections == [good]
    assert missing == [Missing("bad", "it could not be made (ZeroDivisionError: oh)")]


def test_every_kind_of_series_is_drawn_by_both(tmp_path: Path) -> None:
    x = np.array([0.0, 1.0, np.nan])
    square = np.array([[0.0, 1, 1, 0]])
    series = [
        charts.Bars(x, x, "bars", low=x, high=x),
        charts.Line(x, x, "line", x, x, dashed=True, step=True),
        charts.Points(x, x, "points", x, x, texts=["a"] * 3),
        charts.Areas(square, square[:, ::-1], np.array([np.nan]), "none", texts=["t"]),
        charts.Words(x, x, ["w", "$", "v"]),
    ]
    chart = charts.Chart(NASTY, charts.Axis(NASTY, ticks=[NASTY, "b"]), charts.Axis("y", limits=(0, 2)), series)
    grid = charts.Grid(np.array([[1.0, np.nan]]), [["1", ""]], "bar")
    other = charts.Chart("g", charts.Axis("x"), charts.Axis("y", log=True), [grid])
    text = without_scripts(html.document(Page("t", "s", "run", [Section("one", "", [chart, other])])))
    assert text.count("data:image/png;base64,") == 2
    told = json.dumps(interactive.figure(chart), allow_nan=False)
    assert "<script" not in told
    assert "<b" not in told


def test_a_band_ends_where_its_line_breaks() -> None:
    high = np.array([2.0, 3.0, np.nan, 4.0, 5.0])
    line = charts.Line(np.arange(5.0), high - 0.5, low=high - 1, high=high)
    band, _ = interactive.figure(charts.Chart("Counts", charts.Axis("x"), charts.Axis("y"), [line]))["data"]
    assert band["fill"] == "toself"
    assert band["x"] == [0, 1, 1, 0, None, 3, 4, 4, 3]
    assert band["y"] == [1, 2, 3, 2, None, 3, 4, 5, 4]


def test_without_plotly_a_page_has_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "library", lambda: None)
    bars = charts.Bars(np.zeros(1), np.ones(1))
    chart = charts.Chart("c", charts.Axis("x"), charts.Axis("y"), [bars])
    text = html.document(Page("t", "s", "run", [Section("one", "", [chart])]))
    assert "<script" not in text
    assert "script-src 'none'" in policy(text)
    assert len(text) < 100_000


def test_the_verb_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = foreign_catalog(tmp_path / "cat").url
    assert main(["report", url, "--out", str(tmp_path / "p.html"), "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert "sections" in said
    assert "not there: Top of the list" in said
    text = without_scripts((tmp_path / "p.html").read_text())
    assert "default-src 'none'" in policy(text)
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    with pytest.raises(InputError, match=r"\.html"):
        report(url, out=str(tmp_path / "p.pdf"))
    for place, words in ((tmp_path / "nowhere", "is not there"), (tmp_path, "has no page")):
        assert main(["report", str(place)]) == 2
        assert words in capsys.readouterr().err


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    url = foreign_catalog(tmp_path / "cat").url
    for wish, words in (
        ({"by": "nothing"}, "no column 'nothing'"),
        ({"top": 0}, "1 to 200"),
        ({"evaluation": str(tmp_path / "no")}, "no evaluation at"),
        ({"source": str(tmp_path / "no")}, "no"),
    ):
        with pytest.raises(InputError, match=words):
            page_of(url, ReportOptions(**wish))


def test_every_section_has_a_title_of_its_own() -> None:
    names = [maker.title for maker in makers.MAKERS]
    assert len(set(names)) == len(names)
