"""The file of scores: nothing is lost, whoever writes at the same time and whatever kills them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.scorefile import ScoreFile
from tests.ranked_catalogs import DECLARED, ranked_catalog, rows
from workflows.label import open_labels

BIG = 587722952767439450
"""An id that a float64 cannot hold."""


def scores(path: Path, who: str = "ana", identity: str = "c1") -> ScoreFile:
    return ScoreFile(path, identity, who, catalog="cat")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_come_back_exactly(tmp_path: Path) -> None:
    file = scores(tmp_path / "s.jsonl")
    assert not file.path.exists()
    file.add(BIG, 4, "tidal tail, 潮汐")
    file.add(-3, 0)
    again = scores(tmp_path / "s.jsonl")
    assert {score.object_id: (score.score, score.note) for score in again.all()} == {
        BIG: (4, "tidal tail, 潮汐"),
        -3: (0, ""),
    }
    assert again.table()["object_id"].to_pylist() == [-3, BIG]
    assert len(again) == 2


def test_the_last_score_of_a_person_counts_and_people_are_averaged(tmp_path: Path) -> None:
    ana, bo = scores(tmp_path / "s"), scores(tmp_path / "s", "bo")
    ana.add(1, 5)
    ana.add(1, 4)
    bo.add(1, 1, "a star")
    bo.add(2, 3)
    assert ana.refresh() == 2
    row = ana.table().to_pylist()
    assert [(item["object_id"], item["score"], item["people"], item["notes"]) for item in row] == [
        (1, 2.5, 2, "a star"),
        (2, 3.0, 1, ""),
    ]
    assert {key: score.score for key, score in ana.mine().items()} == {1: 4}


def test_undo_brings_back_what_counted_before_also_after_a_restart(tmp_path: Path) -> None:
    file = scores(tmp_path / "s")
    file.add(1, 5)
    file.add(2, 3)
    file.add(1, 0)
    again = scores(tmp_path / "s")
    assert again.undo() == 1
    assert {key: score.score for key, score in again.mine().items()} == {1: 5, 2: 3}
    assert again.undo(1) == 1
    assert again.undo() == 2
    assert again.undo() is None
    assert len(scores(tmp_path / "s")) == 0
    assert len(lines(file.path)) == 7  # nothing was rewritten


def test_undo_takes_back_ones_own_scores_only(tmp_path: Path) -> None:
    ana, bo = scores(tmp_path / "s"), scores(tmp_path / "s", "bo")
    ana.add(1, 5)
    bo.add(2, 4)
    assert ana.undo() == 1
    assert bo.table()["object_id"].to_pylist() == [1, 2]  # not read again yet
    bo.refresh()
    assert bo.table()["object_id"].to_pylist() == [2]


WRITER = """
import sys
from pathlib import Path
from astroml_plugin.labelling.scorefile import ScoreFile
file = ScoreFile(Path(sys.argv[1]), "c1", sys.argv[2])
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    file.add(number, number % 6, "n" * (number % 50))
    print(number, flush=True)
"""


def writer(path: Path, who: str, first: int, last: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, str(path), who, str(first), str(last)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_two_processes_and_a_killed_one_lose_nothing_that_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    running = [writer(path, "ana", 0, 150), writer(path, "bo", 100, 250), writer(path, "cy", 1000, 100_000)]
    doomed = running[2]
    assert doomed.stdout is not None
    confirmed = [int(doomed.stdout.readline()) for _ in range(30)]
    os.kill(doomed.pid, signal.SIGKILL)
    confirmed += [int(line) for line in doomed.stdout.read().split()]
    assert [process.wait(60) for process in running[:2]] == [0, 0]
    for process in running:
        process.communicate()
    file = scores(path)
    told = {(score.object_id, score.who): (score.score, len(score.note)) for score in file.all()}
    wanted = {(n, "ana"): (n % 6, n % 50) for n in range(150)} | {(n, "bo"): (n % 6, n % 50) for n in range(100, 250)}
    wanted |= {(n, "cy"): (n % 6, n % 50) for n in confirmed}
    assert wanted.items() <= told.items()
    assert len(told) - len(wanted) <= 1  # written, not yet confirmed
    assert file.skipped == 0
    assert sum("kind" in line for line in lines(path)) == 1


def test_a_line_that_a_crash_cut_short_costs_itself_alone(tmp_path: Path) -> None:
    file = scores(tmp_path / "s")
    file.add(1, 5)
    with file.path.open("a") as torn:
        torn.write('{"object_id": 2, "sco')
    again = scores(tmp_path / "s")
    assert list(again.mine()) == [1]
    again.add(3, 2)
    last = scores(tmp_path / "s")
    assert sorted(last.mine()) == [1, 3]
    assert last.skipped == 1
    assert sorted(file.mine()) == [1]
    file.refresh()
    assert sorted(file.mine()) == [1, 3]


def test_foreign_lines_are_counted_not_believed(tmp_path: Path) -> None:
    file = scores(tmp_path / "s")
    file.add(1, 5)
    with file.path.open("a") as more:
        more.write('{"object_id": 2, "score": 9, "who": "x"}\n[]\nnull\n\n{"object_id": 3, "score": 2.5, "who": "x"}\n')
        more.write('{"undo": true, "object_id": 77, "who": "x"}\n')
    again = scores(tmp_path / "s")
    assert len(again) == 1
    assert again.skipped == 4


def test_a_file_that_is_begun_anew_is_read_anew(tmp_path: Path) -> None:
    file = scores(tmp_path / "s")
    file.add(1, 5)
    file.add(2, 5)
    file.path.unlink()
    file.add(3, 1)
    assert sorted(file.mine()) == [3]
    assert sorted(scores(tmp_path / "s").mine()) == [3]


def test_a_file_of_another_catalog_is_refused(tmp_path: Path) -> None:
    one = ranked_catalog(tmp_path / "one", rows(5), 1)
    open_labels(one.url).add(10**17, 3)
    assert (tmp_path / "one.scores.jsonl").exists()
    other = Catalog.create(str(tmp_path / "two"), DECLARED, {"source": "t", "bundles": {"b": "1"}})
    with pytest.raises(InputError, match=r"scores of another catalog .*one"):
        open_labels(other.url, path=str(tmp_path / "one.scores.jsonl"))
    late = open_labels(other.url, path=str(tmp_path / "new.jsonl"))  # made by a page of the other catalog meanwhile
    open_labels(one.url, path=str(tmp_path / "new.jsonl")).add(1, 1)
    with pytest.raises(InputError, match="another catalog"):
        late.add(2, 2)
    assert len(lines(tmp_path / "new.jsonl")) == 2
    assert len(open_labels(one.url)) == 1


def test_a_grown_catalog_keeps_its_scores(tmp_path: Path) -> None:
    catalog = ranked_catalog(tmp_path / "c", rows(5), 1)
    open_labels(catalog.url).add(10**17, 3)
    ranked_catalog(tmp_path / "c", rows(5, first=50, tile="im_9"), 1)
    assert len(open_labels(catalog.url)) == 1


def test_what_is_no_file_of_scores(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("object_id,score\n1,5\n")
    with pytest.raises(InputError, match="no file of scores"):
        scores(tmp_path / "s")
    with pytest.raises(InputError, match="is a folder"):
        scores(tmp_path)
    (tmp_path / "t").write_text(json.dumps({"kind": "astroml_plugin.scores", "format": 7, "identity": "c1"}) + "\n")
    with pytest.raises(InputError, match="format 7"):
        scores(tmp_path / "t")
    catalog = ranked_catalog(tmp_path / "c", rows(5), 1)
    with pytest.raises(InputError, match="local file"):
        open_labels(catalog.url, path="s3://bucket/scores.jsonl")


@pytest.mark.parametrize(("score", "says"), [(6, "0 to 5"), (-1, "0 to 5"), (2.5, "0 to 5"), (True, "0 to 5")])
def test_what_is_no_score(tmp_path: Path, score: object, says: str) -> None:
    file = scores(tmp_path / "s")
    with pytest.raises(InputError, match=says):
        file.add(1, score)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="64-bit"):
        file.add(2**63, 1)
    with pytest.raises(InputError, match="2001 characters"):
        file.add(1, 1, "n" * 2001)
    with pytest.raises(InputError, match="1 to 100 characters"):
        scores(tmp_path / "s", " ")
    assert not file.path.exists()
