"""The verbs rank and label through the outer door."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from astropy.table import Table

from astroml_plugin.catalog import Catalog
from tests.ranked_catalogs import ranked_catalog, rows, stamps_and_catalog
from workflows.cli import main
from workflows.label import open_labels


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return ranked_catalog(tmp_path_factory.mktemp("verbs") / "cat", rows(60))


def test_rank_prints_and_writes(catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", catalog.url, "--top", "5"]) == 0
    shown = capsys.readouterr().out
    assert "rank_score" in shown
    assert "top 5 of 60 by anomaly_score, 0 near-duplicates folded" in shown
    to = tmp_path / "top.fits"
    assert main(["rank", catalog.url, "--score=-size", "--where", "flags = 0", "--top", "7", "--to", str(to)]) == 0
    table = Table.read(to)
    assert len(table) == 7
    assert (table["rank_score"] == -table["size"]).all()
    assert table["size"].unit == "pix"
    capsys.readouterr()
    assert main(["rank", catalog.url, "--like", str(table["object_id"][0]), "--top", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["ranked"]) == (3, 59)


def test_rank_learns(catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "s.jsonl")
    scores = open_labels(catalog.url, path=path)
    for number in range(8):
        scores.add(10**17 + number, number % 6)
    assert main(["rank", catalog.url, "--learn", "--scores", path, "--top", "4", "--learner", "gaussian_process"]) == 0
    assert "from 8 scored objects" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rank", "--score", "p_lens"], "no column 'p_lens'"),
        (["rank", "--like", "7"], "no object 7"),
        (["rank", "--like", "7", "--learn"], "give --like or --learn"),
        (["rank", "--learn"], "0 scored objects"),
        (["rank", "--top", "0"], "--top must be 1"),
        (["rank", "--to", "list.txt"], "suffix"),
        (["rank", "--scores", "x.jsonl"], "--scores would do nothing here, only with --learn"),
        (["rank", "--features", "size"], "--features would do nothing here, only with --like or --learn"),
        (["rank", "--like", "7", "--fold-latent", "1"], "--fold-latent would do nothing here, only with --score"),
        (["label", "--source", "nowhere.zarr"], "nowhere.zarr"),
        (["label", "--port", "-1"], "0 to 65535"),
        (["label", "--top", "6000"], "1 to 5000"),
        (["label", "--learner", "svm"], "invalid choice"),
    ],
)
def test_wrong_input_is_one_sentence(
    catalog: Catalog,
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main([words[0], catalog.url, *words[1:]])
    except SystemExit as left:
        status = int(left.code or 0)
    told = capsys.readouterr().err
    assert status == 2
    assert says in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_label_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    _, made = stamps_and_catalog(tmp_path)
    words = [sys.executable, "-m", "workflows.cli", "label", made.url, "--who", "ana", "--top", "3"]
    minds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where the test runner was told not to
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=minds
    ) as process:
        assert process.stdout is not None
        assert "3 objects by anomaly_score; scores go to" in process.stdout.readline()
        line = process.stdout.readline()
        address = re.search(r"(http://127\.0\.0\.1:\d+/)#(\S+)", line)
        assert address is not None
        request = urllib.request.Request(address[1] + "api/state", headers={"X-Token": address[2]})
        with urllib.request.urlopen(request, timeout=30) as answer:
            state = json.load(answer)
        assert len(state["list"]) == 3
        body = json.dumps({"object_id": state["list"][0]["id"], "score": 5}).encode()
        headers = {"X-Token": address[2], "Origin": address[1].rstrip("/"), "Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(address[1] + "api/score", body, headers), timeout=30
        ) as answer:
            assert answer.status == 200
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        assert "1 objects have scores" in process.stdout.read()
        assert process.stderr is not None
        assert process.stderr.read() == f"next: astroml-plugin rank {made.url} --learn\n"
    assert len(open_labels(made.url)) == 1
