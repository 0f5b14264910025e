"""One process at a time adds units to a store: others are told, and a dead one is followed at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.sources import writer
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.writer import only_writer
from tests import universe
from workflows.cutouts import cutouts
from workflows.ingest import ingest
from workflows.simulate import simulate


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_BEAT", 0.02), ("_SILENT", 0.5), ("_SETTLE", 0.01)):
        monkeypatch.setattr(writer, name, seconds)


@pytest.mark.parametrize("place", ["{}/s.zarr", "{}/new/folder with blanks/s.zarr/", "memory://writer/s.zarr"])
def test_the_second_is_told_who_writes_and_the_third_may(place: str, tmp_path: Path) -> None:
    url = place.format(tmp_path)
    with only_writer(url):
        with pytest.raises(InputError, match=rf"another process is writing .*process {os.getpid()}.*an array of jobs"):
            only_writer(url).__enter__()
        with only_writer(f"{url.rstrip('/')}2"):
            pass
    with only_writer(url):
        pass
    assert not list(tmp_path.iterdir())


def mark(url: Path, **fields: object) -> Path:
    """A mark that somebody else left."""
    path = url.with_name(f"{url.name}.writer")
    path.write_text(json.dumps({"id": "x", "machine": "another", "process": 1, "who": "n7, process 1"} | fields))
    return path


def test_a_dead_writer_of_this_machine_is_followed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_changes", lambda *_: pytest.fail("it was waited for"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = mark(tmp_path / "s", machine=writer._machine(), process=gone.pid)
    with only_writer(str(tmp_path / "s")):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


@pytest.mark.parametrize("left", [None, "", "{half a ma", "[1]"])
def test_a_silent_writer_of_another_machine_is_followed_after_a_while(left: str | None, tmp_path: Path) -> None:
    path = mark(tmp_path / "s")
    if left is not None:
        path.write_text(left)
    with only_writer(str(tmp_path / "s")):
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_a_living_writer_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    path, over = mark(tmp_path / "s"), threading.Event()

    def live() -> None:
        count = 0
        while not over.wait(0.02):
            count += 1
            storage.write_json(str(path), {"id": "x", "machine": "another", "who": "n7, process 1", "beat": count})

    living = threading.Thread(target=live)
    living.start()
    try:
        with pytest.raises(InputError, match="n7, process 1"), only_writer(str(tmp_path / "s")):
            pass
    finally:
        over.set()
        living.join()
    assert path.exists()


def test_who_was_taken_for_dead_is_told_at_the_end(tmp_path: Path) -> None:
    held = only_writer(str(tmp_path / "s"))
    held.__enter__()
    path = mark(tmp_path / "s")
    threading.Event().wait(0.3)
    with pytest.raises(AstromlError, match=r"another process took .*verify"):
        held.__exit__(None, None, None)
    assert path.exists()  # that of the other


def test_where_no_mark_can_be_put_nobody_is_kept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", closed)
    with only_writer(str(tmp_path / "s")), only_writer(str(tmp_path / "s")):
        assert not list(tmp_path.iterdir())


def test_two_ingests_into_one_survey_are_never_at_once(tmp_path: Path) -> None:
    for name in "ab":
        fits.writeto(tmp_path / f"{name}.fits", np.random.default_rng(ord(name)).normal(size=(64, 64)))
    given = {"out": tmp_path / "s.zarr", "bands": "r", "tile_size": 96, "halo": 16, "zero_point": 25.0}
    with only_writer(str(tmp_path / "s.zarr")), pytest.raises(InputError, match="another process is writing"):
        ingest(str(tmp_path / "a.fits"), **given)
    assert not (tmp_path / "s.zarr").exists()
    for name in "ab":
        ingest(str(tmp_path / f"{name}.fits"), **given)
    assert sorted(info.image for info in Survey.open(str(tmp_path / "s.zarr")).iter_tiles()) == ["a", "b"]
    assert not list(tmp_path.glob("*.writer"))


def test_every_verb_that_numbers_units_is_the_only_writer(tmp_path: Path) -> None:
    """`cutouts`, `simulate` and `generate` number blocks as `ingest` does: two at once would write over each other."""
    survey, out, here = str(tmp_path / "survey.zarr"), tmp_path / "out.zarr", [{"object_id": 1, "x": 100.0, "y": 100.0}]
    universe.make_survey(survey, tile_size=160)
    said = pytest.raises(InputError, match="another process is writing")
    with only_writer(str(out)):
        with said:
            simulate(out=str(out), count=4, preset="field-fixed")
        with said:
            cutouts(survey, objects=pa.Table.from_pylist(here), out=str(out), size=32)
    assert not out.exists()
