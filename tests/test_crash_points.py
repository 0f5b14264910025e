"""SIGKILL at every step of a command: the same command run again gives what an undisturbed one gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from astroml_plugin.labelling.scorefile import ScoreFile
from tests import reliability

POINTS = {
    "infer": 24,
    "infer with another objects table": 24,
    "infer after compact": 20,
    "compact": 24,
    "verify --repair": 40,
    "ingest of an image": 20,
    "ingest of an archive": 16,
    "train": 12,
    "label": 60,
    "search": 4,
}
"""Command -> points that are tried, evenly spread over all."""


def tried(name: str, folder: Path, most: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.crash_points", name, str(folder), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert [counts[name] for name in ("lost", "doubled", "changed", "bad")] == [0, 0, 0, 0], done.stderr[-3000:]
    assert counts["killed"] >= 0.9 * counts["points"]
    return counts


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", POINTS)
def test_a_command_killed_at_any_step_loses_nothing(name: str, tmp_path: Path) -> None:
    counts = tried(name, tmp_path / "c", POINTS[name])
    order = ("operations", "points", "killed", "lost", "doubled", "changed", "bad")
    reliability.keep("crash points", [[name, *(counts[key] for key in order)]])


def test_scores_cut_short_at_any_byte_keep_all_that_was_confirmed(tmp_path: Path) -> None:
    whole = ScoreFile(tmp_path / "whole.jsonl", "id", "ana")
    confirmed = [0]  # bytes of the file after each score
    for number in range(3):
        whole.add(number, number, "ü")
        confirmed.append(whole.path.stat().st_size)
    data, path = whole.path.read_bytes(), tmp_path / "cut.jsonl"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        scores = ScoreFile(path, "id", "ana")
        kept = sum(size >= end for end in confirmed[1:])
        assert set(scores.mine()) == set(range(kept))
        if size % 5 == 0:
            scores.add(9, 5)
            assert set(ScoreFile(path, "id", "ana").mine()) >= {*range(kept), 9}
