import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import NO_TYPICALITY, class_stamps, ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.recipe import to_toml
from astroml_plugin.training.splits import SplitSettings
from workflows.evaluate import evaluate
from workflows.recalibrate import recalibrate
from workflows.recipe import read_recipe, shipped
from workflows.train import train

torch.set_num_threads(1)

SMALL = (
    """
[network_arguments]
widths = [6, 12]
hidden = 24
pooling = "grid"
[training]
epochs = 8
batch_size = 32
learning_rate = 0.005
[split]
fractions = [0.6, 0.2, 0.2]
"""
    + NO_TYPICALITY
)
ELLIPTICITY = 'task = "ellipticity"\n[settings]\nstamp_size = 24\npsf = "none"\nany_band = true\n' + SMALL
CLASSES = 'task = "classify"\n[settings]\nlabel = "kind"\nnames = { 1 = "galaxy", 2 = "star" }\n' + SMALL


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ellipticity_stamps(str(tmp_path_factory.mktemp("data") / "galaxies.zarr"), 400)


@pytest.fixture(scope="module")
def trained(galaxies: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    notes: list[tuple] = []
    result = train(
        write(folder / "r.toml", ELLIPTICITY),
        data=galaxies,
        out=folder / "shapes",
        progress=lambda *told: notes.append(told),
    )
    assert [note[:3] for note in notes] == [("trained", epoch, 8) for epoch in range(1, 9)]
    assert result.epochs == 8
    return folder / "shapes"


def test_bundle_tells_how_it_was_made(galaxies: str, trained: Path) -> None:
    card = ModelBundle.load(trained).card
    assert card.name == "shapes"
    assert card.settings["bands"] == ["r"]
    assert card.settings["pixel_scale"] == 0.2
    assert card.training["sources"] == [{"name": "galaxies.zarr", "id": Stamps.open(galaxies).id, "objects": 400}]
    assert sum(card.training["objects"].values()) == 400
    data = LabelledStamps([galaxies])
    settings = from_mapping(SplitSettings, card.training["split"], "the card")
    assert card.training["split_ids"] == data.split_identity(data.split(settings, np.ones(400, bool)))
    assert card.metrics["test"]["count"] == card.training["objects"]["test"]
    assert max(card.metrics["test"]["rmse"]) < 0.1
    assert str(trained.parent) not in json.dumps(card.training)
    assert sorted(path.name for path in trained.iterdir()) == [
        *(
            "card.json",
            "gradients.png",
            "log.jsonl",
            "recipe.toml",
            "training.png",
            "training_objects.safetensors",
            "weights.safetensors",
        )
    ]


def test_resolved_recipe_makes_the_same_bundle(galaxies: str, trained: Path, tmp_path: Path) -> None:
    resolved = read_recipe(trained / "recipe.toml")
    assert resolved == read_recipe(write(tmp_path / "r.toml", ELLIPTICITY))
    train(resolved, data=[galaxies], out=tmp_path / "again")
    again, first = ModelBundle.load(tmp_path / "again"), ModelBundle.load(trained)
    assert again.card.weights_sha256 == first.card.weights_sha256
    assert again.card.metrics == first.card.metrics


def test_same_training_again_is_skipped_and_another_refused(galaxies: str, trained: Path) -> None:
    before = (trained / "card.json").read_bytes()
    assert train(trained / "recipe.toml", data=galaxies, out=trained).skipped
    with pytest.raises(InputError, match="made with another recipe, seed or data"):
        train(trained / "recipe.toml", data=galaxies, out=trained, seed=5)
    with pytest.raises(InputError, match="holds a store or catalog"):
        train(trained / "recipe.toml", data=galaxies, out=galaxies)
    assert (trained / "card.json").read_bytes() == before


def test_interrupted_training_continues(galaxies: str, trained: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int, note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trained / "recipe.toml", data=galaxies, out=tmp_path / "b", progress=stop)
    assert not (tmp_path / "b" / "card.json").exists()
    train(trained / "recipe.toml", data=galaxies, out=tmp_path / "b")
    assert ModelBundle.load(tmp_path / "b").card.weights_sha256 == ModelBundle.load(trained).card.weights_sha256


def test_evaluate_scores_only_what_was_not_trained_on(galaxies: str, trained: Path, tmp_path: Path) -> None:
    result = evaluate(galaxies, bundle=trained, out=tmp_path / "own")
    card = ModelBundle.load(trained).card
    assert (result.split, result.objects) == ("test", card.training["objects"]["test"])
    np.testing.assert_allclose(result.metrics["rmse"], card.metrics["test"]["rmse"], rtol=1e-4)
    fresh = evaluate(ellipticity_stamps(str(tmp_path / "f.zarr"), 90, 9), bundle=trained, out=tmp_path / "fresh")
    assert (fresh.split, fresh.objects) == ("all", 90)
    record = json.loads((tmp_path / "fresh" / "metrics.json").read_text())
    assert record["metrics"]["snr_bins"]["20-50"]["count"] > 0
    assert record["bundle_sha256"] == ModelBundle.load(trained).sha256
    assert (tmp_path / "fresh" / "ellipticity.png").read_bytes().startswith(b"\x89PNG")


def test_trained_ellipticity_turns_with_the_image(trained: Path) -> None:
    """Rotating the stamp by 90° reverses e1 and e2, mirroring it reverses e2, within the errors of a small net."""
    model = ModelBundle.load(trained)
    task, network = model.task(), model.network(fused=True)
    rng = np.random.default_rng(4)
    e = rng.uniform(-0.3, 0.3, (64, 2))
    image = gaussians(e, rng, 0.01)

    def measured(pixels: np.ndarray) -> np.ndarray:
        given = from_stamps(np.ascontiguousarray(pixels), None, None, bands=("z",), pixel_scale=0.2)
        inputs, flags = task.prepare(given)
        with torch.inference_mode():
            columns, _ = task.to_columns(network(*inputs), given, flags)
        return np.stack([columns["e1"], columns["e2"]], axis=1)

    straight = measured(image)
    assert np.corrcoef(straight[:, 0], e[:, 0])[0, 1] > 0.9
    for pixels, signs in ((np.rot90(image, axes=(2, 3)), (-1, -1)), (image[..., ::-1], (1, -1))):
        moved = measured(pixels) * signs
        assert np.corrcoef(moved[:, 0], straight[:, 0])[0, 1] > 0.9
        assert np.corrcoef(moved[:, 1], straight[:, 1])[0, 1] > 0.9


def test_classes_from_two_bands_of_bytes(tmp_path: Path) -> None:
    source = class_stamps(str(tmp_path / "c.zarr"))
    result = train(write(tmp_path / "r.toml", CLASSES), data=source, out=tmp_path / "kinds", epochs=5)
    model = ModelBundle.load(tmp_path / "kinds")
    assert [column.name for column in model.task().columns()] == ["p_galaxy", "p_star", "label"]
    assert model.card.settings["dtype"] == "uint8"
    assert model.stamp_size == 24
    assert result.metrics["test"]["accuracy"] > 0.9
    found = evaluate(source, bundle=tmp_path / "kinds", out=tmp_path / "e")
    assert set(found.figures) == {"confusion.png", "reliability.png", "curves.png"}
    assert model.card.training["left_out"] == 0
    assert sum(model.card.settings["training_prior"]) == pytest.approx(1)
    assert {"accuracy", "balanced_accuracy", "ece", "confusion"} <= set(found.metrics)


def test_class_without_an_example_in_a_split_is_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = {"kind": np.where(np.arange(60) == 0, 2, 1)}
    source = write_stamps(str(tmp_path / "c.zarr"), gaussians(np.zeros((60, 2)), rng), labels)
    with pytest.raises(InputError, match=r"split lacks a class \((galaxy \d+, star 0|galaxy 0)"):
        train(write(tmp_path / "r.toml", CLASSES), data=source, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_labels_that_cannot_be_learned_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = {"e1": np.full(40, np.nan), "e2": rng.uniform(size=40)}
    source = write_stamps(str(tmp_path / "c.zarr"), gaussians(np.zeros((40, 2)), rng), labels)
    recipe = write(tmp_path / "r.toml", ELLIPTICITY)
    with pytest.raises(InputError, match=r"'e1' is NaN, infinite or null for \d+ of \d+ objects"):
        train(recipe, data=source, out=tmp_path / "b")
    alike = {"e1": np.full(40, 0.1), "e2": labels["e2"]}
    constant = write_stamps(str(tmp_path / "d.zarr"), gaussians(np.zeros((40, 2)), rng), alike)
    with pytest.raises(InputError, match=r"'e1' is 0.1 for all \d+ objects"):
        train(recipe, data=constant, out=tmp_path / "b")
    with pytest.raises(InputError, match="label column 'kind' is missing"):
        train(write(tmp_path / "k.toml", CLASSES), data=source, out=tmp_path / "b")
    needs_psf = write(tmp_path / "p.toml", ELLIPTICITY.replace('psf = "none"', 'psf = "required"'))
    with pytest.raises(InputError, match="needs the PSF of each object"):
        train(needs_psf, data=source, out=tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('tsak = "classify"', "unknown key 'tsak' in the recipe: did you mean 'task'"),
        ('task = "clasify"', "did you mean classify"),
        ('task = "classify"\n[settings]\nlabels = "x"', "'labels' in .*settings.*: did you mean 'label'"),
        ('task = "classify"\n[settings.normalisation]\nstrech = "x"', "did you mean 'stretch'"),
        ('task = "classify"\n[training]\nepoch = 3', "did you mean 'epochs'"),
        ('task = "classify"\n[training]\nepochs = "3"', "epochs in .*training.* must be a whole number"),
        ('task = "classify"\n[network_arguments]\nwidth = [3]', "did you mean 'widths'"),
        ("task =", "must be TOML"),
        ('network = "strided_cnn"', "incomplete"),
    ],
)
def test_recipe_mistakes_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path / "r.toml", text)).build_task()


def test_any_band_model_is_trained_on_one_band(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    e = rng.uniform(-0.4, 0.4, (60, 2))
    image = np.repeat(gaussians(e, rng), 2, axis=1)
    source = write_stamps(str(tmp_path / "c.zarr"), image, {"e1": e[:, 0], "e2": e[:, 1]}, bands=("g", "r"))
    with pytest.raises(InputError, match=r"the data have g, r: set bands = \["):
        train(write(tmp_path / "r.toml", ELLIPTICITY), data=source, out=tmp_path / "b", epochs=1)
    text = ELLIPTICITY.replace("[settings]", '[settings]\nbands = ["r"]')
    train(write(tmp_path / "one.toml", text), data=source, out=tmp_path / "b", epochs=1)
    assert ModelBundle.load(tmp_path / "b").bands == ("r",)
    unseen = np.repeat(gaussians(e, rng), 2, axis=1)
    other = write_stamps(str(tmp_path / "o.zarr"), unseen, {"e1": e[:, 0], "e2": e[:, 1]}, bands=("u", "z"))
    with pytest.raises(InputError, match="band r is missing"):
        evaluate(other, bundle=tmp_path / "b", out=tmp_path / "e")
    assert evaluate(other, bundle=tmp_path / "b", out=tmp_path / "e", band="z").objects == 60
    renamed = write_stamps(str(tmp_path / "n.zarr"), image, {"e1": e[:, 0], "e2": e[:, 1]}, bands=("u", "z"), block=7)
    assert evaluate(renamed, bundle=tmp_path / "b", out=tmp_path / "e", band="z").split == "unseen"


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"shipped ones, anomaly, classify, ellipticity, .*regress"):
        read_recipe("elipticity")


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_valid_and_survive_toml(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    recipe.build_task()
    text = to_toml(recipe)
    assert tomllib.loads(text)["task"] == recipe.task
    assert read_recipe(write(tmp_path / "r.toml", text)) == recipe


def test_errors_can_be_calibrated_on_another_population(galaxies: str, trained: Path, tmp_path: Path) -> None:
    other = ellipticity_stamps(str(tmp_path / "o.zarr"), 300, 12)
    before = ModelBundle.load(trained)
    ModelBundle.save(tmp_path / "theirs", before.network(), replace(before.card, training={"identity": "another"}))
    for place, said in ((tmp_path / "theirs", "holds another bundle"), (other, "holds a store or catalog")):
        with pytest.raises(InputError, match=said):
            recalibrate(trained, data=other, out=place)
    made = recalibrate(trained, data=other, out=tmp_path / "shapes")
    assert recalibrate(trained, data=other, out=tmp_path / "shapes").sha256 == made.sha256  # its own: again
    assert made.card.weights_sha256 == before.card.weights_sha256
    assert made.card.settings["error_scale"] != before.card.settings["error_scale"]
    merit = evaluate(other, bundle=tmp_path / "shapes", out=tmp_path / "e").metrics
    np.testing.assert_allclose(np.mean(merit["coverage_683"]), 0.683, atol=0.03)
    with pytest.raises(InputError, match="trained on: give stamps of another seed"):
        recalibrate(trained, data=galaxies)
