"""A classifier goes on learning on stamps that nobody labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table
from training_samples import SIZE, class_stamps, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.settings import TrainingSettings
from astroml_plugin.training.typicality_fit import LEAST, TypicalitySettings
from astroml_plugin.training.unseen import ADAPTED
from workflows.adapt import adapt
from workflows.cli import main
from workflows.evaluate import evaluate
from workflows.fit_typicality import fit_typicality
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query
from workflows.train import train

torch.set_num_threads(1)
RECIPE = Recipe(
    "classify",
    settings={
        "label": "kind",
        "names": {"1": "galaxy", "2": "star"},
        "any_dtype": True,
        "resize": "fit",
        "normalisation": {"unit": "noise"},
    },
    network_arguments={"widths": [4, 8], "hidden": 8},
    training=TrainingSettings(epochs=4, batch_size=32, learning_rate=5e-3, augment=True),
    typicality=TypicalitySettings(fit=False),
)


def other_survey(url: str, count: int = 260, seed: int = 9, scale: float = 0.2) -> str:
    """The same two kinds as another telescope shows them: narrower, noisier, float pixels, larger stamps."""
    rng = np.random.default_rng(seed)
    kind, side = rng.integers(1, 3, count), SIZE + 6
    y, x = np.mgrid[:side, :side] - side // 2
    width = np.where(kind == 1, 3.4, 1.2)[:, None, None]
    image = 3 + 20 * np.exp(-0.5 * (x**2 + y**2) / width**2) + rng.normal(0, 1.2, (count, side, side))
    pixels = np.stack([image, 0.5 * image], axis=1).astype(np.float32)
    return write_stamps(url, pixels, {"truth": kind}, bands=("g", "r"), scale=scale)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, ModelBundle]:
    """Folder, labelled stamps and a bundle that learned from them."""
    folder = tmp_path_factory.mktemp("adapt")
    data = class_stamps(str(folder / "labelled.zarr"), 400)
    train(RECIPE, data=data, out=folder / "start")
    return folder, data, ModelBundle.load(folder / "start")


@pytest.fixture(scope="module")
def adapted(made: tuple[Path, str, ModelBundle]) -> tuple[str, ModelBundle]:
    """Stamps of the other survey, and the bundle that was adapted to them."""
    folder, data, start = made
    strange = other_survey(str(folder / "night.zarr"))
    return strange, adapt(start.url, data=data, unlabelled=strange, out=folder / "adapted", epochs=3)


def answers(bundle: str, source: str, out: Path) -> dict[str, np.ndarray]:
    infer(source, bundle=bundle, out=str(out))
    found = query(str(out), "SELECT * FROM catalog ORDER BY object_id").to_arrow()
    return {name: found[name].to_numpy(zero_copy_only=False) for name in found.column_names}


def test_it_keeps_what_it_knew_and_knows_the_survey(
    made: tuple[Path, str, ModelBundle], adapted: tuple[str, ModelBundle], tmp_path: Path
) -> None:
    (_, data, start), (strange, bundle) = made, adapted
    assert bundle.task().settings.classes == start.task().settings.classes == ("galaxy", "star")
    before, after = (answers(one.url, strange, tmp_path / one.name) for one in (start, bundle))
    assert np.mean(before["label"] == after["label"]) > 0.9
    assert not np.array_equal(before["p_star"], after["p_star"])
    assert "typicality" not in after  # the bundle before knew nothing of it
    assert bundle.card.metrics["test"]["accuracy"] > 0.9
    truth = evaluate(data, bundle=bundle.url, out=tmp_path / "report", robustness=False)
    assert truth.split == "test"  # training objects of the first bundle are still known


@pytest.mark.slow
def test_what_is_typical_is_what_the_survey_shows(made: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    _, data, start = made
    strange, again = (other_survey(str(tmp_path / f"{seed}.zarr"), seed=seed) for seed in (9, 10))
    knowing = fit_typicality(start.url, data=data, out=tmp_path / "knowing")
    bundle = adapt(knowing.url, data=data, unlabelled=strange, out=tmp_path / "adapted", epochs=1)
    found = [answers(one.url, again, tmp_path / f"of-{one.name}")["typicality"] for one in (knowing, bundle)]
    odd = [float(np.mean(values < 0.01)) for values in found]
    assert odd[0] > 0.5 > 0.1 > odd[1]


def test_the_card_tells_what_it_was_adapted_to(
    adapted: tuple[str, ModelBundle], made: tuple[Path, str, ModelBundle]
) -> None:
    told = adapted[1].card.training[ADAPTED]
    assert (told["name"], told["sha256"], told["objects"]) == ("start", made[2].sha256, 260)
    assert told["sources"][0]["name"] == "night.zarr"


def test_again_it_is_there_and_another_one_is_refused(
    made: tuple[Path, str, ModelBundle], adapted: tuple[str, ModelBundle]
) -> None:
    folder, data, start = made
    again = adapt(start.url, data=data, unlabelled=adapted[0], out=folder / "adapted", epochs=3)
    assert again.card.training["identity"] == adapted[1].card.training["identity"]
    with pytest.raises(InputError, match="another recipe, seed or data"):
        adapt(start.url, data=data, unlabelled=adapted[0], out=folder / "adapted", epochs=2)


def test_tiles_of_a_survey_and_a_table_of_places(made: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    """Both sides of an unlabelled survey: pixels from tiles, places from a table of its objects."""
    _, data, start = made
    rng = np.random.default_rng(4)
    images = rng.normal(0, 1, (2, 400, 400)).astype(np.float32)
    places = np.stack(np.meshgrid(np.arange(30, 380, 35), np.arange(30, 380, 35)), -1).reshape(-1, 2)
    y, x = np.mgrid[:400, :400]
    for number, (across, up) in enumerate(places):
        blob = 20 * np.exp(-0.5 * ((x - across) ** 2 + (y - up) ** 2) / (3.4 if number % 2 else 1.2) ** 2)
        images += np.stack([blob, 0.5 * blob]).astype(np.float32)
    survey = ingest(images, out=str(tmp_path / "sky.zarr"), bands="g,r").source
    table = Table({"object_id": np.arange(len(places)), "x": places[:, 0] * 1.0, "y": places[:, 1] * 1.0})
    with pytest.raises(InputError, match=r"give the places of its objects \(--objects TABLE\)"):
        adapt(start.url, data=data, unlabelled=survey, out=tmp_path / "none")
    found = adapt(start.url, data=data, unlabelled=survey, objects=table, out=tmp_path / "new", epochs=1)
    assert found.card.training[ADAPTED]["objects"] == len(places) == 100


def test_what_cannot_be_adapted_is_refused(made: tuple[Path, str, ModelBundle], tmp_path: Path) -> None:
    _, data, start = made
    few = other_survey(str(tmp_path / "few.zarr"), 20)
    with pytest.raises(InputError, match="20 stamps show no survey"):
        adapt(start.url, data=data, unlabelled=few, out=tmp_path / "a")
    with pytest.raises(InputError, match="only classifiers of classes that exclude each other"):
        adapt("ellipticity", data=data, unlabelled=few, out=tmp_path / "a")
    unlike = write_stamps(str(tmp_path / "one.zarr"), np.zeros((80, 1, SIZE, SIZE), np.float32), {}, bands=("z",))
    with pytest.raises(InputError, match="band"):
        adapt(start.url, data=data, unlabelled=unlike, out=tmp_path / "a")
    blank = write_stamps(
        str(tmp_path / "blank.zarr"), np.full((80, 2, SIZE, SIZE), np.nan, np.float32), {}, bands=("g", "r")
    )
    with pytest.raises(InputError, match="usable pixels"):
        adapt(start.url, data=data, unlabelled=blank, out=tmp_path / "a")
    with pytest.raises(InputError, match="epochs"):
        adapt(start.url, data=data, unlabelled=few, out=tmp_path / "a", epochs=0)
    with pytest.raises(InputError, match=r"the unlabelled sources differ in .*: give sources that agree"):
        adapt(start.url, data=data, unlabelled=[few, unlike], out=tmp_path / "a")
    with pytest.raises(InputError, match="leave the objects away"):
        adapt(start.url, data=data, unlabelled=few, objects="places.parquet", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_the_bundle_before_learned_from_is_no_test_object(
    made: tuple[Path, str, ModelBundle], adapted: tuple[str, ModelBundle], tmp_path: Path
) -> None:
    """Half of the labelled stamps are old ones in a new store: on its test side, too, they are left out."""
    _, data, start = made
    old, new = Stamps.open(data), Stamps.open(class_stamps(str(tmp_path / "new.zarr"), 300, 5))
    image = np.concatenate([store.read_rows(np.arange(200))[0] for store in (old, new)])
    kind = np.concatenate([store.labels()["kind"].to_numpy()[:200] for store in (old, new)])
    mixed = write_stamps(
        str(tmp_path / "mixed.zarr"), image, {"kind": kind}, bands=("g", "r"), object_id=np.arange(1000, 1400)
    )
    bundle = adapt(start.url, data=mixed, unlabelled=adapted[0], out=tmp_path / "adapted", epochs=1)
    judged = evaluate(mixed, bundle=bundle.url, out=tmp_path / "report", robustness=False)
    assert judged.split == "test"
    assert judged.objects == bundle.card.training["objects"]["test"] < 35  # 60 in its split
    again = adapt(bundle.url, data=mixed, unlabelled=adapted[0], out=tmp_path / "again", epochs=1)
    assert again.card.training["objects"]["test"] == judged.objects


def test_another_band_is_another_bundle(tmp_path: Path) -> None:
    data = class_stamps(str(tmp_path / "labelled.zarr"), 200)
    settings = {**RECIPE.settings, "any_band": True, "bands": ["g"]}
    recipe = replace(RECIPE, settings=settings, training=replace(RECIPE.training, epochs=1))
    train(recipe, data=one_band(data, str(tmp_path / "g.zarr")), out=tmp_path / "start")
    given = {"data": tmp_path / "g.zarr", "unlabelled": other_survey(str(tmp_path / "night.zarr"), 80), "epochs": 1}
    adapt(tmp_path / "start", out=tmp_path / "adapted", band="g", **given)
    with pytest.raises(InputError, match="another recipe, seed or data"):
        adapt(tmp_path / "start", out=tmp_path / "adapted", band="r", **given)


def one_band(source: str, url: str) -> str:
    store = Stamps.open(source)
    image = store.read_rows(np.arange(store.count))[0][:, :1]
    return write_stamps(url, image, {"kind": store.labels()["kind"].to_numpy()}, bands=("g",))


@pytest.mark.slow
def test_typicality_of_pixels_of_another_size_is_learned_after_an_interruption(
    made: tuple[Path, str, ModelBundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, data, start = made
    knowing = fit_typicality(start.url, data=data, out=tmp_path / "knowing", most=250)
    night = other_survey(str(tmp_path / "night.zarr"), LEAST + 10, scale=0.25)
    given = {"data": data, "unlabelled": night, "out": tmp_path / "adapted", "epochs": 1}
    with monkeypatch.context() as patched:
        patched.setattr("astroml_plugin.training.adaptation.fit_bundle_typicality", interrupted)
        with pytest.raises(KeyboardInterrupt):
            adapt(knowing.url, **given)
    assert ModelBundle.load(tmp_path / "adapted").typicality_file() is None
    bundle = adapt(knowing.url, **given)
    assert bundle.card.training["typicality"]["sources"][0]["name"] == "night.zarr"
    assert adapt(knowing.url, **given).sha256 == bundle.sha256
    far = Stamps.open(data)
    image, kind = far.read_rows(np.arange(far.count))[0], far.labels()["kind"].to_numpy()
    coarse = write_stamps(str(tmp_path / "coarse.zarr"), image, {"kind": kind}, bands=("g", "r"), scale=0.4)
    with pytest.raises(InputError, match="give stamps of its own scale"):
        adapt(knowing.url, data=coarse, unlabelled=night, out=tmp_path / "none")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_bundle_whose_classes_turn_is_not_turned(tmp_path: Path) -> None:
    data = class_stamps(str(tmp_path / "labelled.zarr"), 200)
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=1, augment=False))
    train(recipe, data=data, out=tmp_path / "start")
    night = other_survey(str(tmp_path / "night.zarr"), 80)
    training = adapt(tmp_path / "start", data=data, unlabelled=night, out=tmp_path / "new", epochs=1).card.training
    assert (training[ADAPTED]["settings"]["symmetries"], training["settings"]["augment"]) == (1, False)


def test_answers_are_learned_as_trained_and_questions_too() -> None:
    """A prior shifts what a bundle says, not what it learns; soft answers of classes and of a question stay soft."""
    settings = {"label": "kind", "classes": ["a", "b"], "training_prior": [0.5, 0.5], "prior": {"a": 0.99}}
    outputs = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, -1.0]])
    plain, asking = (
        ClassifyTask.from_settings({**settings, **more}) for more in ({}, {"also": ["arms"], "missing": "leave_out"})
    )
    soft = outputs[:, :2].softmax(1)
    torch.testing.assert_close(plain.taught(outputs[:, :2]), soft)
    taught = asking.taught(outputs)
    torch.testing.assert_close(taught, torch.cat([soft, outputs[:, 2:].sigmoid()], 1))
    learned = outputs.clone().requires_grad_()
    asking.loss(learned, taught).backward()
    torch.testing.assert_close(learned.grad, torch.zeros(2, 3), atol=1e-6, rtol=0)  # it answers so already


def test_the_verb_says_what_it_made(
    made: tuple[Path, str, ModelBundle], adapted: tuple[str, ModelBundle], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data, start = made
    given = ["adapt", start.url, "--data", data, "--unlabelled", adapted[0], "--out", str(folder / "adapted")]
    assert main([*given, "--epochs", "3"]) == 0
    told = capsys.readouterr().out
    assert "start adapted to 260 stamps" in told
    assert f"{adapted[1].card.training['adapted']['loss_before']:.4g} before" in told
