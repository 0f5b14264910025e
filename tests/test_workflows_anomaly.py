"""Anomalies end to end: unlabelled stamps in, a catalog with score, signs, artefacts and latent vectors out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.tasks.anomaly.signs import PICTURE_WEIGHTS, SIGNS
from astroml_plugin.tasks.anomaly.task import ARTEFACTS, AnomalyTask
from astroml_plugin.training.adversarial import CHECKPOINT, AdversarialSettings
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.plan import plan_training
from tests.anomaly_samples import SIZE, population, stored, tiny
from tests.training_samples import write_stamps
from workflows.evaluate import evaluate
from workflows.infer import infer
from workflows.query import query
from workflows.train import train

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with stamps and the bundle trained on them."""
    folder = tmp_path_factory.mktemp("anomaly")
    source = stored(folder, 256)
    return folder, train(tiny(keep_latent=True), data=source, out=str(folder / "bundle")).bundle


def scored(model: ModelBundle, image: np.ndarray, variance: np.ndarray | None = None) -> np.ndarray:
    given = from_stamps(image.astype(np.float32), variance, None, bands=("g", "r"))
    return columns(model.task(), model.network(fused=True), given)["anomaly_score"]


def test_a_catalog_of_odd_objects(made: tuple[Path, str], tmp_path: Path) -> None:
    source = stored(tmp_path, 160, seed=5, odd=24)
    result = infer(source, bundle=made[1], out=str(tmp_path / "catalog"))
    assert (result.rows, result.units_failed) == (160, 0)
    names = Catalog.open(result.catalog).schema.names
    signs = {f"anomaly_{name}" for name in SIGNS if name != "critic"}  # an autoencoder has no critic
    assert {name for name in names if name.startswith("anomaly_")} == {"anomaly_score", *signs}
    assert {"asymmetry", "artefact", "latent"} <= set(names)
    table = query(result.catalog, "SELECT * FROM catalog ORDER BY object_id").to_arrow().to_pandas()
    score = table["anomaly_score"].to_numpy()
    assert np.isfinite(score).all()
    assert len(np.unique(score)) == 160
    assert np.median(score[-24:]) > np.quantile(score[:-24], 0.9)
    assert set(table["artefact"]) <= set(ARTEFACTS)
    assert np.stack(table["latent"].to_list()).shape == (160, 4)


def test_the_card_has_the_ranking_of_stamps_as_they_are(tmp_path: Path) -> None:
    source, recipe = stored(tmp_path, 256, odd=96), tiny(label="kind")
    model = ModelBundle.load(train(recipe, data=source, out=str(tmp_path / "bundle")).bundle)
    plan, task = plan_training(recipe, LabelledStamps([source])), model.task()
    outputs, targets, rows = network_outputs(task, model.network(), plan.batches("test"))
    told, wanted = model.card.metrics["test"], task.metrics(outputs, targets, plan.table(rows))
    assert told["auroc"] == pytest.approx(wanted["auroc"])
    assert told["recall"] == pytest.approx(wanted["recall"])
    assert told["loss"] != pytest.approx(wanted["loss"])  # that of the question which the judge is asked
    assert 0 <= told["painted_auroc"] <= 1


def test_the_score_is_a_tail_of_the_population(made: tuple[Path, str]) -> None:
    model = ModelBundle.load(made[1])
    image, _ = population(400, seed=17)
    score = scored(model, image)
    assert np.mean(score > 1) == pytest.approx(0.1, abs=0.07)
    assert np.median(score) == pytest.approx(0.3, abs=0.2)


def test_a_sign_that_the_network_cannot_give_is_no_column_and_no_part_of_the_score(made: tuple[Path, str]) -> None:
    model = ModelBundle.load(made[1])
    task = model.task()
    image, _ = population(96, seed=19, odd=16)
    given = from_stamps(image.astype(np.float32), None, None, bands=("g", "r"))
    found = columns(task, model.network(fused=True), given)
    weights, power = task.settings.weights, task.settings.power
    assert weights["critic"] > 0
    parts = [weights[name] * np.float64(found.get(f"anomaly_{name}", np.zeros(96))) ** power for name in SIGNS]
    wanted = task.settings.score(np.sum(parts, axis=0) ** (1 / power))
    np.testing.assert_allclose(found["anomaly_score"], wanted, atol=2e-5)
    assert "anomaly_critic" not in found
    assert "critic" not in task.explained()
    assert all(np.ptp(values) > 0 for name, values in found.items() if name.startswith("anomaly_"))


def test_a_catalog_of_the_time_when_it_was_a_column_is_refused_in_one_sentence(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stored(tmp_path, 100, seed=6)
    with monkeypatch.context() as before:
        before.setattr(AnomalyTask, "signs", SIGNS)
        infer(source, bundle=made[1], out=str(tmp_path / "catalog"))
    assert "anomaly_critic" in Catalog.open(str(tmp_path / "catalog")).schema.names
    with pytest.raises(InputError, match=r"other columns than this run \(\['anomaly_critic'\]\): choose another --out"):
        infer(source, bundle=made[1], out=str(tmp_path / "catalog"))


def test_variance_brightness_and_orientation_do_not_matter(made: tuple[Path, str]) -> None:
    model = ModelBundle.load(made[1])
    image, _ = population(64, seed=3, odd=16)
    variance = np.full_like(image, 25.0)
    plain, brighter = scored(model, image, variance), scored(model, 2 * image, 4 * variance)
    turned = np.ascontiguousarray(np.roll(image[:, :, ::-1, ::-1], (1, 1), (2, 3)).swapaxes(2, 3))
    other = scored(model, turned, variance)
    np.testing.assert_allclose(brighter, plain, atol=0.02)
    assert np.median(np.abs(other - plain)) < 0.03  # the border on which the background is measured is not the same
    np.testing.assert_allclose(other, plain, atol=0.6)


def test_unusable_constant_and_spoilt_stamps(made: tuple[Path, str], tmp_path: Path) -> None:
    image, _ = population(64, seed=4)
    image[0] = np.nan
    image[1] = 7.0
    image[2, :, :12] = np.nan
    image[3, 0, 18, 20] = 4000.0
    image[4] = np.minimum(image[4], 200.0)
    axis = np.arange(SIZE)
    image[5] += 40 * np.exp(-0.5 * ((axis[:, None] - 0.5 * axis - 12) / 1.2) ** 2)
    url = write_stamps(str(tmp_path / "spoilt.zarr"), image, {}, bands=("g", "r"))
    result = infer(url, bundle=made[1], out=str(tmp_path / "catalog"))
    table = query(result.catalog, "SELECT * FROM catalog ORDER BY object_id").to_arrow().to_pandas()
    assert np.isfinite(table["anomaly_score"]).tolist() == [False, False] + [True] * 62
    assert table["artefact"][:2].isna().all()
    assert table["flags"][0] & int(ObjectFlag.NONFINITE)
    assert table["flags"][1] & int(ObjectFlag.OUT_OF_DOMAIN)
    assert table["artefact"].tolist()[2:5] == ["edge", "pixels", "saturation"]
    assert table["artefact"][5] == "trail"


@pytest.mark.slow
def test_eight_bit_pictures_train_and_run(tmp_path: Path) -> None:
    source = stored(tmp_path, 192, odd=8, dtype="uint8")
    recipe = tiny(label="kind")
    bundle = train(recipe, data=source, out=str(tmp_path / "bundle")).bundle
    model = ModelBundle.load(bundle)
    assert model.task().settings.dtype == "uint8"
    assert model.task().settings.weights == PICTURE_WEIGHTS  # those that the score was calibrated with
    found = evaluate(source, bundle=bundle, out=str(tmp_path / "report"))
    assert (found.split, found.objects) == ("all", 192)
    catalog = found.metrics["catalog"]
    assert catalog["anomalies"] == 8
    assert {"anomaly_score", "asymmetry", "second_source", "pca"} <= set(catalog["rankings"])
    gain = catalog["rankings"]["pca"]["auroc_gain"]
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert set(catalog["by_kind"]) == {"merger"}
    assert {"rankings.png", "score.png"} <= set(found.figures)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["task"] == "anomaly"


def test_a_population_too_small_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\d+ stamps and a population needs 100"):
        train(tiny(), data=stored(tmp_path, 96), out=str(tmp_path / "bundle"))


def test_labels_are_never_learned(tmp_path: Path) -> None:
    """The same pixels with other labels make the same weights."""
    image, kind = population(160)
    urls = [
        write_stamps(str(tmp_path / f"{name}.zarr"), image, {"kind": values}, bands=("g", "r"))
        for name, values in (("a", kind), ("b", np.roll(np.where(np.arange(160) % 3, "normal", "merger"), 1)))
    ]
    recipe = replace(tiny(label="kind"), training=replace(tiny().training, epochs=1))
    bundles = [ModelBundle.load(train(recipe, data=url, out=f"{url}-bundle").bundle) for url in urls]
    assert bundles[0].card.weights_sha256 == bundles[1].card.weights_sha256


def test_f_anogan_trains_resumes_and_gives_a_critic_sign(tmp_path: Path) -> None:
    source = stored(tmp_path, 192)
    recipe = replace(tiny("anogan"), adversarial=AdversarialSettings(epochs=2, least_spread=0.0))

    def stopping(what: str, done: int, total: int, note: str) -> None:
        if what == "trained":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data=source, out=str(tmp_path / "bundle"), progress=stopping)
    assert (tmp_path / "bundle" / CHECKPOINT).exists()
    told: list[str] = []
    result = train(recipe, data=source, out=str(tmp_path / "bundle"), progress=lambda what, *rest: told.append(what))
    assert "generator" not in told  # it was trained before the interruption
    assert not (tmp_path / "bundle" / CHECKPOINT).exists()
    model = ModelBundle.load(result.bundle)
    image, _ = population(40, seed=8)
    found = columns(model.task(), model.network(fused=True), from_stamps(image, None, None, bands=("g", "r")))
    assert np.ptp(found["anomaly_critic"]) > 0
    assert train(recipe, data=source, out=str(tmp_path / "bundle")).skipped
