"""Files of scores with lines of others, and first lines that a crash cut short: nothing of ours is lost."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.scorefile import ScoreFile

ODD: list[Any] = [
    *(None, True, False, -1, 6, 2.5, 1e300, 2**63, -(2**63) - 1, "1", "", "\ud800", [], [1], {}, {"a": 1}),
    *(float("inf"), float("-inf"), float("nan"), "9" * 5000),
]
EVENT = {"object_id": 7, "score": 3, "who": "bo", "note": "n", "time": "t"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def scores(path: Path) -> ScoreFile:
    return ScoreFile(path, "c1", "ana", catalog="cat")


def kept(line: bytes) -> None:
    """A foreign line between ours changes nothing of ours, and the file goes on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        scores(path).add(1, 5, "ours")
        with path.open("ab") as file:
            file.write(line.replace(b"\n", b"") + b"\n")
        again = scores(path)
        again.add(2, 4)
        last = scores(path)
        mine = last.mine()
        assert (mine[1].score, mine[1].note, mine[2].score) == (5, "ours", 4)
        table = last.table()
        assert table.num_rows == len(last) >= 2
        others = [score for score in last.all() if score.who != "ana"]
        assert all(isinstance(score.score, int) and 0 <= score.score <= 5 for score in others)
        json.dumps([score.note for score in others]).encode()


@pytest.mark.parametrize("field", ["object_id", "score", "note", "time", "undo"])
def test_fields_of_every_kind(field: str) -> None:
    for value in ODD:
        if (field, value) != ("object_id", -1):
            kept(json.dumps({**EVENT, field: value}).encode())


@effort(max_examples=60)
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b"\0" * 50)
@example(b"\xff\xfe{\0}\0")
def test_bytes_of_every_kind(line: bytes) -> None:
    kept(line)


@effort(max_examples=60)
@given(st.dictionaries(st.sampled_from([*EVENT, "undo", "kind"]), JSON | st.sampled_from(ODD)))
def test_objects_of_every_kind(event: dict[str, Any]) -> None:
    if event.get("who") != "ana":
        kept(json.dumps({**EVENT, **event}).encode())


def test_what_is_no_event_is_counted(tmp_path: Path) -> None:
    scores(tmp_path / "s").add(1, 5)
    foreign = [
        *('{"object_id":1,"score":Infinity,"who":"a"}', '{"object_id":Infinity,"score":1,"who":"a"}', "[" * 100_000),
        *('{"object_id":99999999999999999999,"score":1,"who":"a"}', '{"object_id":1,"score":3,"who":null}'),
        *('{"object_id":1,"score":1,"who":"a","note":"\\ud800"}', '{"object_id":true,"score":1,"who":"a"}'),
        *('{"object_id":1,"undo":"false","who":"ana"}', '{"object_id":1,"score":1,"who":["a"]}'),
    ]
    with (tmp_path / "s").open("a") as file:
        file.write("\n".join(foreign) + "\n")
    assert scores(tmp_path / "s").skipped == len(foreign)
    assert scores(tmp_path / "s").mine()[1].score == 5


@pytest.mark.parametrize("end", [0, 1, 10, 30, 45, 60, None])
@pytest.mark.parametrize("filled", [b"", b"\0\0\0"])
def test_a_first_line_that_a_crash_cut_short_is_begun_anew(tmp_path: Path, end: int | None, filled: bytes) -> None:
    path = tmp_path / "s"
    scores(path).add(1, 5)
    first = path.read_bytes().partition(b"\n")[0]
    path.write_bytes(first[:end] + filled)
    file = scores(path)
    assert len(file) == 0
    file.add(2, 4)
    assert {key: score.score for key, score in scores(path).mine().items()} == {2: 4}
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("content", [b"ten years of work", b'{"kind": "other"', b"\0\0x", b"{}\n"])
def test_a_file_of_others_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no file of scores"):
        scores(path).add(1, 5)
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", ['"1"', "null", "[1]", "{}"])
def test_a_first_line_without_a_version_is_refused(tmp_path: Path, version: str) -> None:
    (tmp_path / "s").write_text(f'{{"kind": "astroml_plugin.scores", "format": {version}, "identity": "c1"}}\n')
    with pytest.raises(InputError, match="is no file of scores"):
        scores(tmp_path / "s")


def test_half_a_character_is_refused_before_it_is_written(tmp_path: Path) -> None:
    file = scores(tmp_path / "s")
    with pytest.raises(InputError, match="half a character"):
        file.add(1, 5, "\ud800")
    with pytest.raises(InputError, match="half a character"):
        ScoreFile(tmp_path / "s", "c1", "a\ud800")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("first", [b"", b'{"kind": "astro\n', b"\xff\n", b'{"mine": 1}\n'])
def test_scores_outlive_their_first_line(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "s"
    scores(path).add(1, 5)
    scores(path).add(2, 4)
    path.write_bytes(first + path.read_bytes().partition(b"\n")[2])
    found = scores(path)
    assert found.headless
    assert {number: score.score for number, score in found.mine().items()} == {1: 5, 2: 4}
    found.add(3, 3)
    again = scores(path)
    assert not again.headless
    assert {number: score.score for number, score in again.mine().items()} == {1: 5, 2: 4, 3: 3}
    with pytest.raises(InputError, match="scores of another catalog"):
        ScoreFile(path, "c2", "ana")
