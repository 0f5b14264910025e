"""Answers that end: lists with a count, long tables cut, lines that fit, digits that numbers have, no colours."""

from __future__ import annotations

import csv
import io
import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog, Column, schema
from astroml_plugin.catalog.annotating.heads import fit_classes
from astroml_plugin.core.description import Description
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources import info as source_info
from astroml_plugin.sources.stamps import Stamps
from tests import universe
from tests.training_samples import write_stamps
from workflows.bundles import bundles
from workflows.cli import main
from workflows.info import info
from workflows.progress import Reporter
from workflows.verbs.asking import _own_digits
from workflows.verbs.options import bounded, finish


def test_long_lists_of_a_result_end_with_their_count(capsys: pytest.CaptureFixture[str]) -> None:
    many = {f"class {number}": number for number in range(2_345)}
    result = {"failed": [["tile", "why"]] * 1_500, "few": [1, 2], "nested": {"classes": many}, "rows": [[0.5] * 1_200]}
    finish(Namespace(json=True, verb="x"), result, "")
    found = json.loads(capsys.readouterr().out)
    assert (len(found["failed"]), found["failed_count"]) == (1000, 1500)
    assert (len(found["nested"]["classes"]), found["nested"]["classes_count"]) == (1000, 2345)
    assert found["few"] == [1, 2]
    assert "few_count" not in found
    assert len(found["rows"][0]) == 1001
    assert found["rows"][0][-1] == "… 200 more"
    assert bounded({"a": 1.5}) == {"a": 1.5}


def test_numbers_of_results_have_their_own_digits(capsys: pytest.CaptureFixture[str]) -> None:
    finish(Namespace(json=True, verb="x"), {"a": np.float32(0.1), "b": np.float64(0.1), "c": np.int8(3)}, "")
    assert json.loads(capsys.readouterr().out) == {"a": 0.1, "b": 0.1, "c": 3}
    assert _own_digits(pa.array([0.1, None, float("nan")], pa.float32()))[:2] == [0.1, None]
    assert _own_digits(pa.array(np.array([0.1], np.float16))) == [0.1]
    assert _own_digits(pa.array([[0.1, None], None], pa.list_(pa.float32(), 2))) == [[0.1, None], None]
    assert _own_digits(pa.array([1 / 3])) == [1 / 3]


def test_rows_for_programs_have_the_digits_of_their_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column("e1", "float32", "", "", "Short"), Column("latent", "float32[2]", "", "", "Short ones"))
    catalog = Catalog.create(str(tmp_path / "cat"), schema(columns), {"source": "s", "bundle": "b"})
    value = [0.1, 1e-30, float("nan")]
    rows = {
        "object_id": [1, 2, 3],
        "image": ["a"] * 3,
        "tile": ["a"] * 3,
        **{name: np.zeros(3) for name in ("x", "y", "ra", "dec")},
        "primary": [True] * 3,
        "flags": pa.array([0] * 3, pa.int32()),
        "e1": pa.array(value, pa.float32()),
        "latent": pa.array([[0.1, 0.7]] * 3, pa.list_(pa.float32(), 2)),
    }
    run = catalog.start_run({"kind": "infer"})
    catalog.commit_manifest(run, [catalog.write_part("a", "a" * 16, pa.table(rows))])
    catalog.finish_run(run)
    assert main(["query", str(tmp_path / "cat"), "SELECT e1, latent FROM catalog ORDER BY object_id", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [row["e1"] for row in data] == [0.1, 1e-30, None]
    assert data[0]["latent"] == [0.1, 0.7]
    assert main(["query", str(tmp_path / "cat"), "SELECT e1, latent FROM catalog ORDER BY object_id", "--to", "-"]) == 0
    written = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert written[1] == ["0.1", "0.1", "0.7"]


def test_a_long_table_of_info_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = Description("x", "survey", {}, ("image",), tuple((str(number),) for number in range(1_234)))
    assert len(repr(long).splitlines()) == 203
    assert "… 1,034 more rows" in repr(long)
    assert "1,034 more rows" in long._repr_html_()
    for name in ("b", "a", "c"):
        universe.make_survey(str(tmp_path / "s.zarr"), shape=(100, 250), tile_size=192, name=name)
    (whole,) = info(tmp_path / "s.zarr")
    assert whole.column("image") == ["a", "b", "c"]
    assert whole.column("tiles") == ["2", "2", "2"]
    monkeypatch.setattr(source_info, "_LISTED", 2)
    (part,) = info(tmp_path / "s.zarr")
    assert part.column("image") == ["a", "b"]
    assert part.facts["images"].startswith("3 in 6 tiles")
    assert part.facts["images"].endswith("the first 2 by name are listed")


def test_labels_of_stamps_are_counted_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((10, 1, 8, 8), np.float32)
    labels = {"kind": [None, "a"] * 5, "z": np.arange(10.0)}
    write_stamps(str(tmp_path / "s.zarr"), image, labels, bands=("r",), block=4)
    monkeypatch.setattr(Stamps, "labels", None)  # all at once is too much of many millions
    (found,) = info(tmp_path / "s.zarr")
    told = dict(zip(found.column("column"), zip(found.column("type"), found.column("values")), strict=True))
    assert told["kind"][1] == "5"
    assert told["z"] == ("double", "10")
    assert "string" in told["kind"][0]


def test_a_sentence_about_classes_does_not_name_them_all() -> None:
    with pytest.raises(InputError) as raised:
        fit_classes(np.zeros((5000, 2)), np.arange(5000).astype(str))
    assert len(str(raised.value)) < 250
    assert "and 4,992 more" in str(raised.value)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bundles_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = repr(bundles()).splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= min(width, 110)  # paths stay whole
    monkeypatch.setenv("COLUMNS", "10")
    narrow = [line for line in repr(bundles("lens")).splitlines() if "/" not in line]  # of any checkout
    assert max(len(line) for line in narrow) < 60  # words stay whole


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_colours_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-7])[0-9;]*m")
    for wanted, no_color in ((True, None), (False, "1")):
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        stream = Terminal()
        with Reporter(stream) as report:
            report("measured", 1, 3, "10 objects/s")
        assert bool(coloured.search(stream.getvalue())) is wanted
        assert "measured" in stream.getvalue()
