"""From labelled stamps to thresholds that keep their promise on another catalog, with a model that is exactly right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.catalog.query import query
from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.training import bundle_evaluation as evaluation
from astroml_plugin.training.bundle import Card, ModelBundle
from tests.training_samples import write_stamps
from workflows.class_statistics import ClassStatistics, class_statistics
from workflows.cli import main
from workflows.evaluate import evaluate
from workflows.infer import infer

torch.set_num_threads(1)
SIDE = 8
draw = evaluation.write_figure


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Figures take most of an evaluation's time: only the last test draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "write_figure", lambda url, figure: None)
        yield


def stamps(url: str, count: int, fraction: float, seed: int) -> tuple[str, np.ndarray]:
    """Stamps whose brightness is a unit Gaussian, 3 higher for a `lens`; and which are."""
    rng = np.random.default_rng(seed)
    lens = rng.random(count) < fraction
    level = rng.normal(size=count) + 3 * lens
    image = np.broadcast_to(level[:, None, None, None], (count, 1, SIDE, SIDE)) + 0.0
    image[:, :, 0, 0] += 1e-3
    labels = {"label": np.where(lens, "lens", "other"), "theta_e": np.where(lens, rng.uniform(0.7, 2, count), 0.0)}
    return write_stamps(url, image.astype(np.float32), labels, block=4096), lens


def bundle(url: Path, **settings: object) -> str:
    """Exact probabilities of those classes at equal fractions."""
    values = {"bands": ["r"], "stamp_size": SIDE, "classes": ["other", "lens"], "training_prior": [0.5, 0.5]}
    plain = {"background": "none", "unit": "scale", "scales": [1.0], "stretch": "linear"}
    task = ClassifyTask.from_settings({**values, "normalisation": plain, **settings})
    network = task.build_network("mlp", {"hidden": [], "binning": SIDE})
    with torch.no_grad():
        network.layers[0].weight[:] = torch.tensor([[0.0], [3.0]])  # type: ignore[union-attr,index]
        network.layers[0].bias[:] = torch.tensor([0.0, -4.5])  # type: ignore[union-attr,index]
    arguments = {"hidden": [], "binning": SIDE}
    ModelBundle.save(url, network, Card(url.name, "classify", task.to_settings(), "mlp", arguments))
    return str(url)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A bundle, its evaluation, and a catalog of other objects with 5 % lenses."""
    folder = tmp_path_factory.mktemp("classes")
    model = bundle(folder / "lens", positive="lens", search_bins=["theta_e"])
    labelled, _ = stamps(str(folder / "labelled.zarr"), 6000, 0.5, seed=1)
    evaluate(labelled, bundle=model, out=folder / "report", options={"symmetries": 1})
    survey, lens = stamps(str(folder / "survey.zarr"), 10_000, 0.05, seed=2)
    infer(survey, bundle=model, out=str(folder / "catalog"), options={"symmetries": 1})
    return folder, lens


def ask(made: tuple[Path, np.ndarray], **options: object) -> ClassStatistics:
    return class_statistics(str(made[0] / "catalog"), evaluation=str(made[0] / "report" / "metrics.json"), **options)


def selected(made: tuple[Path, np.ndarray], condition: str) -> np.ndarray:
    table = query(str(made[0] / "catalog"), f"SELECT object_id FROM catalog WHERE {condition}").to_arrow()
    return made[1][table["object_id"].to_numpy()]


def test_fractions_are_corrected(made: tuple[Path, np.ndarray]) -> None:
    found = {one.name: one for one in ask(made).counts}["lens"]
    truth = made[1].mean()
    assert found.raw - truth > 0.03  # false positives of the many
    assert abs(found.fraction - truth) < 3 * found.error
    assert 0.001 < found.error < 0.006


@pytest.mark.parametrize("purity", [0.5, 0.9])
def test_selections_are_as_pure_and_complete_as_promised(made: tuple[Path, np.ndarray], purity: float) -> None:
    (found,) = ask(made, purity=purity).selections
    lens = selected(made, found.sql)
    assert len(lens) == found.selected
    assert lens.mean() == pytest.approx(purity, abs=0.07)
    assert found.choice.completeness_low - 0.05 < lens.sum() / made[1].sum() < found.choice.completeness_high + 0.05
    assert found.mean_probability > lens.mean() + 0.05  # made for equal fractions, they promise too much


def test_a_known_fraction_changes_the_threshold(made: tuple[Path, np.ndarray]) -> None:
    common = ask(made, purity=0.5).selections[0].choice.threshold
    rare = ask(made, purity=0.5, prior={"lens": 0.001}).selections[0]
    assert rare.choice.threshold > common
    assert rare.choice.prior == 0.001
    unreached = ask(made, purity=0.99, prior={"lens": 1e-4}).selections[0]
    assert unreached.choice is None
    assert "highest is" in unreached.note


def test_the_most_probable_objects(made: tuple[Path, np.ndarray]) -> None:
    (found,) = ask(made, top=250).selections
    lens = selected(made, found.sql)
    assert found.selected == len(lens) == 250
    assert lens.mean() == pytest.approx(found.choice.purity, abs=0.08)


def test_probabilities_for_the_surveys_fractions(made: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Catalog and evaluation under the same prior: the probabilities themselves are then right."""
    folder, prior = made[0], {"lens": 0.05}
    infer(str(folder / "survey.zarr"), bundle=str(folder / "lens"), out=str(tmp_path / "c"), options={"prior": prior})
    evaluate(str(folder / "labelled.zarr"), bundle=str(folder / "lens"), out=tmp_path / "r", options={"prior": prior})
    with pytest.raises(InputError, match=r"the catalog was made with prior .*lens"):
        class_statistics(str(tmp_path / "c"), evaluation=str(folder / "report"))
    found = class_statistics(str(tmp_path / "c"), evaluation=str(tmp_path / "r"), purity=0.8).selections[0]
    assert found.mean_probability == pytest.approx(found.choice.purity, abs=0.12)
    scores = json.loads((tmp_path / "r" / "metrics.json").read_text())["metrics"]["catalog"]["scores"]
    assert scores["ece"]["value"] < 0.02
    assert scores["accuracy"]["value"] > 0.95


def test_columns_of_one_bundle_among_several_and_objects_without_class(
    made: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    source, _ = stamps(str(tmp_path / "s.zarr"), 1000, 0.3, seed=5)
    both = [str(made[0] / "lens"), bundle(tmp_path / "another")]
    infer(source, bundle=both, out=str(tmp_path / "c"))
    found = class_statistics(str(tmp_path / "c"), evaluation=str(made[0] / "report"), purity=0.8)
    assert found.selections[0].sql.startswith('isfinite("lens_p_lens") AND "lens_p_lens" >= ')
    assert found.objects == 1000
    image = np.full((4, 1, SIDE, SIDE), np.nan, np.float32)
    write_stamps(str(tmp_path / "bad.zarr"), image, {"label": np.array(["other"] * 4)})
    infer(str(tmp_path / "bad.zarr"), bundle=str(made[0] / "lens"), out=str(tmp_path / "n"))
    with pytest.raises(InputError, match=r"no object .* has a class where TRUE \(4 have none\)"):
        class_statistics(str(tmp_path / "n"), evaluation=str(made[0] / "report"))


def test_objects_without_a_probability_are_never_selected(made: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    level = np.linspace(-2, 5, 40)
    level[::4] = np.nan
    image = np.broadcast_to(level[:, None, None, None], (40, 1, SIDE, SIDE)).astype(np.float32).copy()
    image[:, :, 0, 0] += 1e-3
    write_stamps(str(tmp_path / "some.zarr"), image, {"label": np.array(["other"] * 40)})
    infer(str(tmp_path / "some.zarr"), bundle=str(made[0] / "lens"), out=str(tmp_path / "c"))
    found = class_statistics(str(tmp_path / "c"), evaluation=str(made[0] / "report"), purity=0.5, prior={"lens": 0.5})
    assert (found.objects, found.unmeasured) == (30, 10)
    (chosen,) = found.selections
    rows = query(str(tmp_path / "c"), f"SELECT p_lens FROM catalog WHERE {chosen.sql}").to_arrow()["p_lens"].to_numpy()
    assert 0 < chosen.selected == len(rows) == np.isfinite(rows).sum()
    assert chosen.mean_probability == pytest.approx(rows.mean())


def test_several_labels_are_counted_each(tmp_path: Path) -> None:
    model = bundle(tmp_path / "both", multi_label=True)
    labelled, truth = stamps(str(tmp_path / "l.zarr"), 1500, 0.5, seed=3)
    evaluate(labelled, bundle=model, out=tmp_path / "r")
    infer(labelled, bundle=model, out=str(tmp_path / "c"))
    found = class_statistics(str(tmp_path / "c"), evaluation=str(tmp_path / "r"), class_name="lens", purity=0.9)
    lens = {one.name: one for one in found.counts}["lens"]
    assert lens.fraction == pytest.approx(0.5, abs=4 * lens.error)
    assert lens.fraction == pytest.approx(truth.mean(), abs=1e-9)  # the very objects of the evaluation
    assert found.counts[0].fraction is None  # the model says 0.5 of `other`, always: nothing is told apart
    assert found.selections[0].choice.purity >= 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_name": "quasar"}, "the bundle has other, lens"),
        ({"prior": {"quasar": 0.1}}, "the bundle has other, lens"),
        ({"prior": {"lens": 1.0}}, "between 0 and 1"),
        ({"purity": 0.9, "top": 5}, "one of --purity and --top"),
        ({"purity": 1.5}, "between 0 and 1"),
        ({"top": 0}, "cannot be told apart"),
        ({"where": "flags = -1"}, "no object .* has a class"),
    ],
)
def test_questions_that_have_no_answer_are_refused(made: tuple[Path, np.ndarray], options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ask(made, **options)


def test_evaluations_that_do_not_fit_are_refused(made: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    catalog = str(made[0] / "catalog")
    with pytest.raises(InputError, match="no evaluation at"):
        class_statistics(catalog, evaluation=str(tmp_path / "nothing"))
    record = json.loads((made[0] / "report" / "metrics.json").read_text())
    for name, changes, words in (
        ("other", {"bundle_sha256": "0" * 64}, "evaluate the bundle that made the catalog"),
        ("empty", {"metrics": {}}, "has no classes"),
        ("steady", {"symmetries": 8}, "evaluate with the same --symmetries"),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({**record, **changes}))
        with pytest.raises(InputError, match=words):
            class_statistics(catalog, evaluation=str(tmp_path / f"{name}.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        class_statistics(catalog, evaluation=str(tmp_path / "broken.json"))


def test_the_command_prints_and_writes(
    made: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["class-statistics", str(made[0] / "catalog"), "--evaluation", str(made[0] / "report")]
    assert main([*common, "--purity", "0.5,0.9", "--prior", "lens=0.04", "--to", str(tmp_path / "t.csv")]) == 0
    told = capsys.readouterr().out
    assert "corrected" in told
    assert "lens, purity >= 0.9: isfinite(p_lens) AND p_lens >= 0." in told.replace('"', "")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3
    assert main([*common, "--class", "quasar"]) == 2


@pytest.mark.slow
def test_evaluation_says_what_averaging_costs(
    made: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "write_figure", draw)
    source, _ = stamps(str(tmp_path / "s.zarr"), 600, 0.5, seed=4)
    report = ["evaluate", source, "--bundle", str(made[0] / "lens"), "--out", str(tmp_path / "r"), "--symmetries", "4"]
    assert main(report) == 0
    told = capsys.readouterr().out
    assert "4 symmetries:" in told
    assert "TPR10" in told
    assert "theta_e 0." in told
    rows = json.loads((tmp_path / "r" / "metrics.json").read_text())["metrics"]["symmetries"]
    assert [row["symmetries"] for row in rows] == [1, 2, 4]
    assert rows[0]["cost"] == 1
    assert (tmp_path / "r" / "symmetries.png").stat().st_size > 5000
    assert pa.array([row["accuracy_gain"]["value"] for row in rows])[0].as_py() == 0
