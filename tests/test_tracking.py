"""Trainings told to trackers by name: what they hear, that nothing secret is told, and what is said where one lacks."""

from __future__ import annotations

import importlib.util
import math
import os
import sqlite3
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from training_samples import NETWORK, ellipticity_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.search.session import SearchExecution
from astroml_plugin.training import tracking
from astroml_plugin.training.run import TrainExecution
from astroml_plugin.training.tracking import TRACKERS, Tracking, flat
from workflows.cli import main
from workflows.train import train

RECIPE = NETWORK + "[training]\nepochs = 2\nbatch_size = 32\n[split]\nfractions = [0.6, 0.2, 0.2]\n"


class Heard:
    """A tracker that keeps what it is told."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.told, self.steps, self.open = name, {}, [], True

    def settings(self, values: Any) -> None:
        self.told = dict(values)

    def figures(self, step: int, values: Any) -> None:
        self.steps.append((step, dict(values)))

    def close(self) -> None:
        self.open = False


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Heard]:
    made: list[Heard] = []
    monkeypatch.setitem(TRACKERS, "heard", lambda name, url: made.append(Heard(name, url)) or made[-1])
    return made


def test_a_training_is_heard_epoch_by_epoch(tmp_path: Path, heard: list[Heard]) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    data = ellipticity_stamps(str(tmp_path / "galaxies.zarr"), 120)
    lines: list[Any] = []
    result = train(
        tmp_path / "r.toml",
        data=data,
        out=tmp_path / "shapes",
        execution=TrainExecution(device="cpu", track=("heard", "tensorboard")),
        progress=lambda *told: lines.append(told),
    )
    (one,) = heard
    assert (one.name, one.open) == ("shapes", False)
    assert one.told["network_arguments.hidden"] == 8.0
    assert one.told["task"] == "ellipticity"
    assert [step for step, _ in one.steps] == [0, 1, 2]
    assert {"validation_loss", "train_loss"} <= set(one.steps[0][1])
    assert one.steps[2][1]["test.loss"] == pytest.approx(result.metrics["test"]["loss"])
    assert len(lines) == 2
    events = list((tmp_path / "shapes" / "tensorboard").glob("events.*"))
    assert b"validation_loss" in events[0].read_bytes()
    assert train(tmp_path / "r.toml", data=data, out=tmp_path / "shapes").skipped


def test_an_epoch_is_told_once_and_what_is_no_number_is_left_out(heard: list[Heard]) -> None:
    settings = {"a": {"b": [1, 2]}, "url": "s3://u:word1234@b/x"}
    with Tracking(("heard",), "s3://key:secret@bucket/runs/mine", settings) as one:
        tell = one.following(lambda: [{"epoch": 0, "loss": 1.0, "bad": math.nan, "note": "x", "good": True}], None)
        assert tell is not None
        tell("trained", 1, 2, "")
        tell("trained", 2, 2, "")
    assert heard[0].name == "mine"
    assert heard[0].told == {"a.b": "[1, 2]", "url": "s3://***@b/x"}
    assert heard[0].steps == [(0, {"loss": 1.0})]


def test_without_a_tracker_nothing_changes() -> None:
    def progress(*told: Any) -> None:
        return

    with Tracking((), "x", {}) as none:
        assert none.following(lambda: [], progress) is progress


def test_a_tracker_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (TrainExecution, SearchExecution):
        with pytest.raises(InputError, match="--track takes mlflow, tensorboard, wandb"):
            kind(track=("comet",))
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"pip install 'astroml-plugin\[{name}\]', or leave --track away"):
            Tracking((name,), str(tmp_path / "x"), {})
    data = ellipticity_stamps(str(tmp_path / "galaxies.zarr"), 20)
    words = ["train", "ellipticity", "--data", data, "--out", str(tmp_path / "b"), "--track", "wandb"]
    assert main(words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("astroml-plugin: ")]
    assert len(said) == 1
    assert "--track wandb needs the package wandb" in said[0]


def test_what_mlflow_and_wandb_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def record(name: str) -> Any:
        return lambda *given, **named: (
            asked.append((name, given or named))
            or types.SimpleNamespace(
                config=types.SimpleNamespace(update=record("config")), log=record("log"), finish=record("finish")
            )
        )

    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    mlflow = types.SimpleNamespace(active_run=lambda: None, **{name: record(name) for name in names})
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=record("init"), Settings=dict))
    for name in ("WANDB_MODE", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    with Tracking(("mlflow", "wandb"), str(tmp_path / "run"), {f"k{number}": number for number in range(150)}) as one:
        one.figures(3, {"loss": 0.5})
    told = dict(asked)
    assert told["init"]["mode"] == "offline"
    assert told["init"]["settings"]["x_disable_meta"] is True
    assert told["start_run"] == {"run_name": "run", "nested": False}
    assert [len(given[0]) for name, given in asked if name == "log_params"] == [100, 50]
    assert told["log_metrics"] == ({"loss": 0.5},)
    assert [name for name, _ in asked][-2:] == ["finish", "end_run"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_flat_settings() -> None:
    assert dict(flat({"a": {"b": 1, "c": None}, "d": "", "e": True, "f": math.inf, "g": "x" * 999})) == {
        "a.b": 1.0,
        "e": "True",
        "g": "x" * 250,
    }


@pytest.mark.filterwarnings("ignore")  # of libraries that MLflow brings
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs the extra mlflow")
def test_a_run_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    with Tracking(("mlflow",), str(tmp_path / "shapes"), {"training": {"epochs": 2}}) as one:
        one.epochs([{"epoch": 0, "loss": 0.5}])
    with sqlite3.connect(tmp_path / "m.db") as database:
        assert database.execute("SELECT key, value FROM metrics").fetchall() == [("loss", 0.5)]
        assert database.execute("SELECT key, value FROM params").fetchall() == [("training.epochs", "2.0")]


@pytest.mark.filterwarnings("ignore")  # of libraries that W&B brings
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra wandb")
def test_a_run_of_wandb_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "s3://user:verysecret@bucket/x"])
    with Tracking(("wandb",), str(tmp_path / "shapes"), {"training": {"epochs": 2}}) as one:
        one.epochs([{"epoch": 0, "loss": 0.5}])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if b"verysecret" in path.read_bytes()]


def test_names_of_extras_are_those_of_the_trackers() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert all(f"\n{name} = [" in text for name in TRACKERS)
    tracking.check_names(tuple(TRACKERS))
