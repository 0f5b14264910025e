"""What people see of the command: answers that fit the terminal or go to programs in full, next steps, completion."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pytest
from catalogs import foreign_catalog, small_catalog

from astroml_plugin.catalog.showing import as_text
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Commands
from astroml_plugin.reporting.subjects import page_of
from astroml_plugin.sources.tile_arrays import HALO
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from workflows import progress
from workflows.at_work import AtWork, duration
from workflows.bundles import bundles
from workflows.cli import VERBS, _parser, main
from workflows.progress import Reporter
from workflows.verbs.after import NEXT, what_next
from workflows.verbs.shells import SHELLS, completion_script


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_catalog(tmp_path_factory.mktemp("line") / "cat")[0].url


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main([*words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [30, 80, 120, 200])
def test_answers_fit_the_terminal_with_the_columns_that_matter(
    catalog: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = said(capsys, "query", catalog, "--limit", "3").splitlines()
    assert max(map(len, lines)) <= width
    heading = lines[0].split()
    assert heading[0] == "object_id"
    assert {"ra", "dec", "label"} <= set(heading) or width < 80
    assert "_healpix_29" not in heading
    if width < 120:
        assert "--columns A,B,… chooses, --vertical shows all" in " ".join(" ".join(lines).split())


def test_columns_without_any_value_take_no_room_from_others() -> None:
    nothing = pa.nulls(1, pa.float64())
    table = pa.table({"object_id": [1], "ra": nothing, "dec": nothing, "x": [3.5], "flags": [0], "class": ["odd"]})
    assert as_text(table, 9, 30).splitlines()[0].split() == ["object_id", "x", "flags", "class"]
    assert as_text(table, 9, 200).splitlines()[0].split() == table.column_names


@pytest.mark.parametrize("words", [(), ("SELECT * FROM catalog",)])
def test_an_answer_without_rows_says_so(
    catalog: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    for more in ((), ("--to", "-")):
        assert main(["query", catalog, *words, "--cone", "200", "0", "0.1", *more]) == 0
        assert "0 rows: the catalog has none" in capsys.readouterr().err
    assert main(["query", catalog, *words]) == 0
    assert "0 rows" not in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 60, 100])
def test_descriptions_fit_the_terminal(
    catalog: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"), shape=(60, 80), tile_size=96, halo=8).url
    monkeypatch.setenv("COLUMNS", str(width))
    for path in (catalog, survey):
        lines = said(capsys, "info", path).splitlines()
        assert [line for line in lines[1:] if len(line) > width] == []
        assert not any(word in lines for word in ("", "  -"))


def test_only_some_rows_are_shown_and_it_is_said_how_many_there_are(
    catalog: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, left in ((("--limit", "50"), 10), ((), 80), (("SELECT * FROM catalog",), 80)):
        assert f"… {left} more rows: --to FILE writes all" in said(capsys, "query", catalog, *words)
    near = int(json.loads(said(capsys, "query", catalog, "--cone", "12.5 0 2", "--json"))["rows"])
    assert 45 < near < 110
    assert f"… {near - 40} more rows" in said(capsys, "query", catalog, "--cone", "12.5", "0", "2")


def test_columns_by_name_and_rows_one_below_the_other(catalog: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "query", catalog, "--columns", "label,flux", "--limit", "2", "--vertical").splitlines()
    assert lines[0] == "row 1"
    assert lines[1].startswith("label  ")
    assert lines[2].endswith(" nJy")
    assert main(["query", catalog, "--columns", "labl"]) == 2
    assert "did you mean 'label'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["query", catalog, "SELECT 1", "--columns", "label"])


def test_programs_get_all_rows(tmp_path: Path, catalog: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(said(capsys, "query", catalog, "--to", "-"))))
    assert len(rows) == 120
    found = json.loads(said(capsys, "query", catalog, "--columns", "object_id,flux", "--json"))
    assert (found["rows"], found["to"], found["columns"], len(found["data"])) == (120, None, ["object_id", "flux"], 120)
    assert {int(row["object_id"]) for row in rows} == {row["object_id"] for row in found["data"]}
    odd = foreign_catalog(tmp_path / "odd").url
    found = json.loads(said(capsys, "query", odd, "SELECT * FROM catalog ORDER BY object_id DESC", "--json"))["data"]
    assert found[0]["object_id"] == 2**63 - 1
    assert {row["flux"] for row in found} == {1.5, None, -1.0}
    assert [None, 1, 2] in [row["latent"] for row in found]
    with pytest.raises(SystemExit):
        main(["query", catalog, "--to", "-", "--json"])
    said(capsys, "query", catalog, "--cone", "12.5 0 0.4", "--to", str(tmp_path / "near.csv"))
    assert (tmp_path / "near.csv").exists()


def run(words: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    script = "import sys; from workflows.cli import entry; entry()"
    given = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, env=given, check=False)


def test_a_terminal_that_knows_few_letters(catalog: str) -> None:
    found = run(["query", catalog], LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", COLUMNS="40")
    assert found.returncode == 0
    assert b"Traceback" not in found.stderr
    assert b"more rows: --to FILE" in found.stdout


@pytest.mark.parametrize("words", [["--to", "-"], ["--json"], []])
def test_a_reader_that_leaves_is_no_error(catalog: str, words: list[str]) -> None:
    script = "import sys; from workflows.cli import entry; entry()"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", script, "query", catalog, *words]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, b"")


def test_few_digits_and_no_letters_that_move_the_cursor() -> None:
    table = pa.table({"x": [1 / 3, None], "name": ["a\x1b[2Jb\n", "b" * 99], "many": [[1.23456, 2.0, 3.0, 4.0], None]})
    text = as_text(table, 9, 200)
    assert "0.333333 " in text
    assert "\x1b" not in text
    assert "b…" in text
    assert "[1.23 2 3 … 4]" in text
    assert len(text.splitlines()) == 4


def test_no_rest_is_told_before_it_can_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with Reporter(log) as report:
        report("measured", 90, 100)  # done by an earlier run
        now[0] += 20
        report("measured", 92, 100)
    assert log.getvalue().splitlines() == ["measured: 90/100", "measured: 92/100 , about 80 s left"]
    assert [duration(seconds) for seconds in (0.0, 89, 91, 7200)] == ["1 s", "89 s", "2 min", "2.0 h"]


def test_pages_of_dask_are_told_of_runs_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    progressed = Namespace(rows=1, seconds=1.0, bottleneck="", failed=0, done=1, skipped=0, units=3)
    log = io.StringIO()
    with Reporter(log) as report:
        report.connected({"dashboard": "http://x"})
        now[0] += 3
        report.units(progressed)
        assert "http" not in log.getvalue()
        now[0] += 3
        report.units(progressed)
        report.units(progressed)
    assert log.getvalue().count("Dask dashboard: http://x") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silent_work_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AtWork, "spoken", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    log, terminal = io.StringIO(), Terminal()
    work = AtWork("evaluate: at work", log)
    begun = work.started
    for seconds in (1, 4, 6, 7, 20):
        work.look(begun + seconds)
    assert log.getvalue() == "evaluate: at work: 6 s so far\n"
    monkeypatch.setattr(AtWork, "spoken", 0.0)
    drawn = AtWork("evaluate: at work", terminal)
    drawn.look(drawn.started + 7)
    assert terminal.getvalue() == "\r\x1b[Kevaluate: at work: 7 s so far"
    AtWork.hush()
    assert terminal.getvalue().endswith("\r\x1b[K")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(AtWork, "spoken", 0.0)
    plain = AtWork("evaluate: at work", Terminal())
    plain.look(plain.started + 7)
    assert "\x1b" not in plain.stream.getvalue()  # type: ignore[attr-defined]


def test_the_thread_ends_with_the_work() -> None:
    with AtWork("nothing", io.StringIO()) as work:
        time.sleep(0)
    work._thread.join(5)
    assert not work._thread.is_alive()


def test_a_long_verb_names_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"), shape=(128, 128), tile_size=192)
    objects = universe.make_objects(tmp_path / "objects.parquet", 5, (128, 128))
    universe.make_bundle(str(tmp_path / "kind"))
    words = ["infer", str(tmp_path / "survey.zarr"), "--bundle", str(tmp_path / "kind"), "--objects", objects]
    assert main([*words, "--out", str(tmp_path / "my catalog")]) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"next: astroml-plugin report '{tmp_path}/my catalog'",
        f"next: astroml-plugin query '{tmp_path}/my catalog'",
    ]
    assert main([*words, "--out", str(tmp_path / "seen"), "--report"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"next: astroml-plugin query {tmp_path}/seen"
    assert main([*words, "--out", str(tmp_path / "my catalog"), "--json"]) == 0
    assert "next:" not in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "c"), "--dry-run"]) == 0
    assert "next:" not in capsys.readouterr().err
    assert set(NEXT) <= set(VERBS)
    failed = Namespace(catalog="c", units_failed=2)
    assert "FROM failures" in what_next(Namespace(verb="infer"), failed)[0]
    assert what_next(Namespace(verb="query"), {}) == []
    made = Namespace(kind="survey", source="s.zarr", out="judged")
    assert what_next(Namespace(verb="ingest"), made)[0] == "astroml-plugin report s.zarr"
    judged = [what_next(Namespace(verb="evaluate", bundle="b", no_report=no), made)[0] for no in (True, False)]
    assert judged[0] == "astroml-plugin report judged"
    assert judged[1].endswith("--out catalog --report")


@pytest.mark.parametrize(
    ("words", "result", "commands"),
    [
        (["explain", "cat", "--name", "why"], {"catalog": "cat", "name": "why"}, ["report cat", "query cat 'SELECT"]),
        (["dream", "lens", "--out", "d"], {}, ["explain CATALOG --bundle lens"]),
        (["show", "cat"], {"objects": 0}, ["report cat"]),
        (["show", "s.zarr"], {"objects": None}, ["infer s.zarr --bundle segmentation --out catalog --report"]),
        (["export", "lens"], {"description": {"name": "lens"}}, ["evaluate TEST.zarr --bundle lens --out report"]),
        (["export", "s.zarr", "--to", "reg"], {"description": {}, "of": "tiles"}, ["show s.zarr"]),
        (["export", "cat", "--to", "fits"], {"description": {}, "of": "rows"}, ["report cat"]),
        (["shear", "cat"], {}, ["report cat"]),
        (
            ["learning-curve", "classify", "--data", "a.zarr", "b.zarr", "--out", "curve"],
            {},
            ["train classify --data a.zarr b.zarr --out bundle"],
        ),
    ],
)
def test_the_next_command_is_one_that_parses(words: list[str], result: dict, commands: list[str]) -> None:
    found = what_next(_parser().parse_args(words), Namespace(**result))
    assert len(found) == len(commands)
    for command, begin in zip(found, commands, strict=True):
        assert command.startswith(f"astroml-plugin {begin}")
        _parser().parse_args(shlex.split(command)[1:])


def test_what_finds_objects_is_not_proposed_where_the_halo_is_too_small(tmp_path: Path) -> None:
    assert ModelBundle.load("segmentation").task().reach == HALO
    for halo, begin in ((16, "ingest FITS --halo 128 --out"), (HALO, f"infer {tmp_path}/128.zarr --bundle segm")):
        url = universe.make_survey(str(tmp_path / f"{halo}.zarr"), shape=(100, 100), tile_size=300, halo=halo)
        place = str(tmp_path / f"{halo}.zarr")
        made = Namespace(kind="survey", source=place)
        found = [
            what_next(Namespace(verb=verb, path=place, **more), Namespace(**vars(made), objects=None))[-1]
            for verb, more in (("ingest", {}), ("show", {}))
        ]
        assert all(one.startswith(f"astroml-plugin {begin}") for one in found), url
        section = page_of(place, ReportOptions()).sections[-1]
        told = [line for block in section.blocks if isinstance(block, Commands) for _, line in block.lines]
        assert any(line.startswith(f"astroml-plugin {begin}") for line in told)


def test_bundles_say_what_they_need_give_and_where_they_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {one.path: one for one in bundles()}
    assert set(found) == {"anomaly", "ellipticity", "lens", "morphology", "objects", "segmentation"}
    assert "bands g, r, i; 64 x 64 pixels of 0.2 arcsec; pixels in nJy" in found["lens"].facts["needs"]
    assert "p_lens" in found["lens"].facts["gives"]
    assert "a PSF" in found["ellipticity"].facts["needs"]
    assert "any one band" in found["segmentation"].facts["needs"]
    for one in found.values():
        assert len(one.notes) > 2
        assert len(repr(one)) < 5000
    assert any(re.search(r"class irregular: \d+ of \d+ were found", note) for note in found["objects"].notes)
    universe.make_bundle(str(tmp_path / "own" / "kind"))
    assert [one.path for one in bundles(tmp_path / "own")] == [one.path for one in bundles(tmp_path / "own" / "kind")]
    assert "own/kind: bundle of the task classify" in said(capsys, "bundles", str(tmp_path / "own"))
    with pytest.raises(InputError, match="no bundle in"):
        bundles(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_know_every_verb(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = said(capsys, "completion", shell)
    assert script.rstrip() == completion_script(shell, parser=_parser()).rstrip()
    for verb in VERBS:
        assert verb in script
    assert "--vertical" in script or "-l vertical" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_verbs_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(completion_script("bash", parser=_parser()))
    (tmp_path / "survey.zarr").mkdir()
    for typed, completed in (("que", "query"), ("query --vert", "--vertical"), ("infer sur", "survey.zarr")):
        words = ["astroml-plugin", *typed.split()]
        code = f"source ./script; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_astroml_plugin; "
        code += 'echo "${COMPREPLY[@]}"'
        found = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.split() == [completed]


def test_an_export_is_what_its_name_says(tmp_path: Path, catalog: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", catalog, "--to", "votable", "--out", str(tmp_path / "x.fits")]) == 2
    assert "is the name of a file of fits, and votable is asked for: use .vot or" in capsys.readouterr().err
    assert main(["export", catalog, "--to", "hats", "--out", str(tmp_path / "x.parquet")]) == 2
    assert "give the name of a folder" in capsys.readouterr().err
    assert main(["export", catalog, "--out", str(tmp_path / "x")]) == 2
    assert "Give --to" in capsys.readouterr().err
    assert main(["export", catalog, "--out", str(tmp_path / "x.vot")]) == 0
    assert (tmp_path / "x.vot").read_bytes().startswith(b"<?xml")
    assert main(["export", catalog, "--to", "reg", "--out", str(tmp_path / "x.reg")]) == 0


def test_a_file_of_options_may_have_a_url(tmp_path: Path, catalog: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_atomic("memory://config/query.toml", f'catalog = "{catalog}"\nlimit = 2\n'.encode())
    assert said(capsys, "query", "--config", "memory://config/query.toml").count("\n") >= 4
    with pytest.raises(SystemExit) as stopped:
        main(["query", "--config", "memory://config/none.toml"])
    assert stopped.value.code == 2
    assert "cannot be read as TOML" in capsys.readouterr().err
