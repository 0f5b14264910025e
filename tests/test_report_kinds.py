"""Pages of evaluations, searches, comparisons, surveys and stamps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation import class_report, value_report
from astroml_plugin.evaluation.class_report import Search
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.text import described
from astroml_plugin.reporting import html, still
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Page
from astroml_plugin.reporting.subjects import page_of
from astroml_plugin.search.study import FAILED, FINISHED, Study
from astroml_plugin.training.checkpoint import write_log
from tests import universe

NASTY = '<i>spiral</i> & "$\\alpha'


@pytest.fixture(autouse=True)
def errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """No section fails unseen; pictures of charts are drawn in tests/test_report.py."""
    monkeypatch.setenv("ASTROML_DEBUG", "1")
    monkeypatch.setattr(still, "png", lambda chart: b"\x89PNG")


def evaluation(folder: Path, metrics: dict, **more: object) -> str:
    record = {"bundle": "b", "bundle_sha256": "0", "task": "t", "split": "test", "objects": 300, **more}
    storage.write_json(str(folder / "metrics.json"), storage.finite({**record, "metrics": metrics}))
    return str(folder)


def titles(page: Page) -> set[str]:
    html.document(page)
    return {section.title for section in page.sections}


def classes(count: int = 300) -> dict:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, count)
    logits = rng.normal(size=(count, 3)) + 2 * np.eye(3)[true]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = [NASTY, "star", "lens"]
    return class_report.assess(p, true, names, search=Search("lens"), table=_nothing(count), repeats=20)[0]


def _nothing(count: int) -> object:
    import pyarrow as pa

    return pa.table({"object_id": np.arange(count)})


def test_an_evaluation_of_classes(tmp_path: Path) -> None:
    page = page_of(evaluation(tmp_path, {"catalog": classes(), "failures": 2, "loss": 0.5}))
    wanted = {"Scores", "Calibration", "Confusion", "Purity and completeness at a budget"}
    assert titles(page) >= wanted | {"Each class against the rest", "Provenance"}
    text = html.document(page)
    assert "<i>spiral" not in text
    assert "2 objects could not be measured" in text


def test_an_evaluation_of_values_keeps_residuals_and_pulls(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 1, 400)
    own = {"z": truth + 0.1 * rng.normal(size=400), "z_err": np.full(400, 0.1)}
    found, _ = value_report.assess(Measurements(own, {}, {}), {"z": truth}, repeats=10)
    bins, pulls = found["columns"]["z"]["residual_bins"], found["columns"]["z"]["pulls"]
    assert np.abs(bins["median"]).max() < 0.1
    assert np.mean(np.array(bins["high"]) - bins["low"]) == pytest.approx(0.2, rel=0.2)
    assert np.sum(pulls["density"]) * 0.25 == pytest.approx(1, abs=0.01)
    page = page_of(evaluation(tmp_path, {"catalog": found}))
    assert "Residuals and pulls" in titles(page)
    drawn = next(section for section in page.sections if section.title == "Residuals and pulls")
    assert len(drawn.blocks) == 3


def test_an_evaluation_of_a_task_nobody_knows(tmp_path: Path) -> None:
    url = evaluation(tmp_path, {"my_figure": 1.5, "nested": {"a": [1, None]}, "catalog": {"mine": "text"}})
    page = page_of(url)
    assert titles(page) == {"Scores", "Provenance", "What to do next"}
    assert page_of(f"{url}/metrics.json").title == page.title
    assert described({"my_figure": 1.5, "failures": 0}) == ["           my figure  1.5"]


def test_rankings_and_shapes_are_told_on_the_terminal() -> None:
    interval = {"value": 0.9, "low": 0.8, "high": 1.0}
    pair = {"count": 10, "rmse": [0.1, 0.2], "bias": [0.0, 0.0]}
    lines = described(
        {"catalog": {"rankings": {"score": {"auroc": interval}}, "all": pair, "shear": {"m": [[1, 2]] * 2}}}
    )
    assert any("0.1000 0.2000" in line for line in lines)
    assert any("m: +1 ± 2, +1 ± 2" in line for line in lines)
    assert any("score" in line and "0.9000  (0.8000-1.0000)" in line for line in lines)


def studied(folder: Path) -> str:
    """A study of twelve trials, of which one failed and one has not ended."""
    space = {
        "training.learning_rate": {"log_uniform": [1e-4, 1e-1]},
        "training.optimizer": {"choice": ["adamw", "sgd"]},
        "training.ema": {"uniform": [0.0, 0.9], "when": {"training.optimizer": "adamw"}},
    }
    record = {"identity": "i", "space": space, "objectives": ["validation_loss:min", "validation_accuracy:max"]}
    study = Study.opened(str(folder), {**record, "settings": {"baseline": True, "algorithm": "random"}})
    rng = np.random.default_rng(0)
    for number in range(12):
        chosen = {"training.learning_rate": float(10 ** rng.uniform(-4, -1)), "training.optimizer": "sgd"}
        if number % 2:
            chosen |= {"training.optimizer": "adamw", "training.ema": 0.5}
        study.propose(number, chosen)
        loss = [1 / epoch + number / 10 for epoch in (1, 2, 3)]
        log = [
            {"epoch": k, "validation_loss": v, "validation_accuracy": 1 - v / 5, "seconds": 1.0}
            for k, v in enumerate(loss)
        ]
        if number != 10:
            write_log(study.folder(number), log)
        if number == 10:
            study.end(number, FAILED, f"it broke {NASTY}")
        elif number != 11:
            study.end(number, FINISHED)
    return study.url


def test_a_study_with_a_failure_and_an_open_trial(tmp_path: Path) -> None:
    page = page_of(studied(tmp_path))
    wanted = {"The best trial", "Progress", "Parameters and objective", "Importance", "Failed trials", "All trials"}
    assert titles(page) >= wanted | {"More than one objective"}
    assert ("finished", "10") in page.facts
    assert page.sections[0].text.startswith("Trial 0 of 12")


def comparison(folder: Path) -> str:
    """A comparison of a network and a method whose name is made to harm."""
    figure = {"value": 0.9, "low": 0.8, "high": 0.95}
    row = {"accuracy": figure, "trained": 10, "train_seconds": None, "objects_per_second": 100.0}
    table = [{"method": "network", **row}, {"method": NASTY, **row, "train_seconds": 2.5}]
    (folder / "compare.json").write_text(json.dumps({"task": "classify", "folds": 5, "objects": 50, "table": table}))
    return str(folder)


def test_a_comparison(tmp_path: Path) -> None:
    page = page_of(comparison(tmp_path))
    assert titles(page) == {"Methods", "Costs", "Provenance"}
    (tmp_path / "compare.json").write_text("[]")
    with pytest.raises(InputError, match="no comparison"):
        page_of(str(tmp_path))


def test_a_survey_with_and_without_world_coordinates(tmp_path: Path) -> None:
    url = str(tmp_path / "s.zarr")
    universe.make_survey(flat := str(tmp_path / "flat.zarr"), shape=(100, 90), tile_size=96, halo=16, wcs=False)
    assert "North" not in page_of(flat).sections[0].text
    universe.make_survey(url, shape=(100, 150), tile_size=96, halo=16)
    universe.make_survey(
        url,
        shape=(100, 90),
        tile_size=96,
        halo=16,
        name="flat & (b)",
        wcs=False,
    )
    page = page_of(url)
    assert titles(page) == {"Tiles", "Bands", "PSF", "Pixels that cannot be used", "Provenance", "What to do next"}
    assert {one.title for one in page.missing} == {"Noise, depth and sky"}
    tiles = page.sections[0]
    assert [block.title for block in tiles.blocks] == [
        "Bands of each tile: 1 everywhere",
        "Bands of each tile: 1 everywhere (pixels, 1 image without world coordinates)",
    ]


def test_options_of_a_run_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--by would do nothing"):
        page_of(evaluation(tmp_path, {}), ReportOptions(by="p_lens"))


def test_stamps_and_an_empty_store(tmp_path: Path) -> None:
    page = page_of(universe.make_stamps(str(tmp_path / "s.zarr"), count=40))
    assert titles(page) == {"What it holds", "Some of the stamps", "Columns of labels", "What to do next"}
    assert page.kind == "stamps"
