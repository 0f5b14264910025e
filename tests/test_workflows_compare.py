import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from training_samples import NO_TYPICALITY, SIZE, class_stamps, ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import with_changes
from astroml_plugin.evaluation.comparison import Score
from astroml_plugin.evaluation.learning_curve import LearningCurve, answer, fit_power_laws
from astroml_plugin.training import curves, learning_curves, method_comparison, predictions
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.splits import SplitSettings
from workflows.cli import main
from workflows.compare import CompareOptions, compare
from workflows.ingest import ingest
from workflows.learning_curve import CurveOptions, learning_curve
from workflows.train import train

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def few_figures() -> Iterator[None]:
    """The curves of training are drawn in tests of training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "write_figure", lambda url, figure: None)
        yield


RECIPE = """
task = "classify"
[settings]
label = "kind"
names = { 1 = "galaxy", 2 = "star" }
positive = "star"
[network_arguments]
widths = [4, 8]
hidden = 8
[training]
epochs = 3
batch_size = 32
learning_rate = 0.005
"""
OTHER = RECIPE.replace("0.005", "0.004").replace('"galaxy"', '"nebula"')


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return class_stamps(str(tmp_path_factory.mktemp("data") / "kinds.zarr"), 240)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "kinds.toml"
    path.write_text(RECIPE + NO_TYPICALITY)
    return path


@pytest.fixture(scope="module")
def compared(data: str, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared") / "out"
    told: list[tuple] = []
    result = compare(
        recipe,
        data=data,
        out=out,
        folds=2,
        methods=["network", "cart", "svm_both"],
        repeats=50,
        progress=lambda *note: told.append(note),
    )
    assert [note[:3] for note in told] == [("compared", number, 6) for number in range(1, 7)]
    assert result.objects == 240
    return out


def test_every_object_is_judged_once_by_every_method_on_the_same_side(compared: Path, data: str) -> None:
    table = pq.read_table(compared / "predictions.parquet").to_pandas()
    assert table.groupby("method").size().to_dict() == {"network": 240, "cart": 240, "svm_both": 240}
    stamps = LabelledStamps([data])
    for fold in (0, 1):
        test = stamps.split(SplitSettings(folds=2, fold=fold), np.ones(240, bool))["test"]
        for _, chosen in table[table.fold == fold].groupby("method"):
            assert sorted(chosen.row) == test.tolist()
    kind = stamps.labels["kind"].to_numpy()
    assert (table.truth == np.where(kind[table.row] == 1, "galaxy", "star")).all()
    np.testing.assert_allclose(table.p_galaxy + table.p_star, 1, atol=1e-5)


def test_table_figure_and_record(compared: Path) -> None:
    record = json.loads((compared / "compare.json").read_text())
    assert record["classes"].keys() == {"galaxy", "star"}
    assert sum(record["classes"].values()) == record["objects"] == 240
    assert record["left_out"] == {"network": 0, "cart": 0, "svm_both": 0}
    best = [line["accuracy"]["value"] for line in record["table"]]
    assert best == sorted(best, reverse=True)
    for line in record["table"]:
        assert line["accuracy"]["low"] <= line["accuracy"]["value"] <= line["accuracy"]["high"]
        assert np.sum(line["confusion"]) == 240
        assert line["train_seconds"] > 0
        assert line["objects_per_second"] > 0
        assert {"macro_f1", "ece", "nll", "auroc", "tpr0", "tpr10", "tpr_fpr_1e-3"} <= set(line)
    assert next(line for line in record["table"] if line["method"] == "svm_both")["accuracy"]["value"] > 0.9
    text = (compared / "table.md").read_text()
    assert text.count("\n") == 5
    assert "| svm_both" in text
    assert (compared / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_finished_is_not_done_again(
    compared: Path, data: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args, **_settings):
        raise AssertionError("this was done before")

    monkeypatch.setattr(predictions, "train_bundle", refuse)
    monkeypatch.setattr(predictions.classical, "Classifier", refuse)
    again = compare(recipe, data=data, out=compared, folds=2, methods=["network", "cart", "svm_both"], repeats=50)
    assert len(again.table) == 3
    (compared / "pieces" / "cart" / "fold_1.parquet").rename(compared / "kept")
    with pytest.raises(AssertionError):
        compare(recipe, data=data, out=compared, folds=2, methods=["network", "cart"], repeats=50)
    (compared / "kept").rename(compared / "pieces" / "cart" / "fold_1.parquet")


def test_other_recipes_tasks_methods_and_outputs_are_refused(
    compared: Path, data: str, recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text(OTHER)
    with pytest.raises(InputError, match="made with another recipe, seed, split or data"):
        compare(tmp_path / "other.toml", data=data, out=compared, folds=2, methods=["cart"])
    with pytest.raises(InputError, match="no method 'forest' to compare: there are network, cart"):
        compare(recipe, data=data, out=tmp_path / "a", methods=["forest"])
    with pytest.raises(InputError, match="holds a store"):
        compare(recipe, data=data, out=data, methods=["cart"])
    for methods, words in ((["cart", "svm", "cart"], "cart more than once"), ([], "none was given")):
        with pytest.raises(InputError, match=words):
            compare(recipe, data=data, out=tmp_path / "a", methods=methods)
    with pytest.raises(InputError, match=r"folds \(-2\) must be 2 or more"):
        compare(recipe, data=data, out=tmp_path / "a", folds=-2, methods=["cart"])
    assert not (tmp_path / "a").exists()
    shapes = ellipticity_stamps(str(tmp_path / "shapes.zarr"), 60)
    (tmp_path / "shapes.toml").write_text('task = "ellipticity"\n[settings]\npsf = "none"')
    with pytest.raises(InputError, match="'cart' tells classes apart, and the recipe's task 'ellipticity' has none"):
        compare(tmp_path / "shapes.toml", data=shapes, out=tmp_path / "b", methods=["cart"])
    (tmp_path / "light.toml").write_text('task = "anomaly"')
    with pytest.raises(InputError, match="task 'anomaly' has no scalar score on these labels"):
        compare(tmp_path / "light.toml", data=data, out=tmp_path / "b")


def test_ordinary_split_and_a_finished_bundle(data: str, recipe: Path, tmp_path: Path) -> None:
    train(recipe, data=data, out=tmp_path / "blobs")
    result = compare(recipe, data=data, out=tmp_path / "c", folds=0, methods=["cart"], bundle=tmp_path / "blobs")
    card = ModelBundle.load(tmp_path / "blobs").card
    assert result.objects == card.training["objects"]["test"]
    line = next(line for line in result.table if line["method"] == "blobs")
    assert line["accuracy"]["value"] == pytest.approx(card.metrics["test"]["accuracy"])
    with pytest.raises(InputError, match="trained on objects of these data with another split"):
        compare(recipe, data=data, out=tmp_path / "d", folds=3, methods=["cart"], bundle=[tmp_path / "blobs"])
    assert not (tmp_path / "d").exists()
    with pytest.raises(InputError, match="bundles by the name blobs"):
        compare(recipe, data=data, out=tmp_path / "d", folds=0, methods=["cart"], bundle=[tmp_path / "blobs"] * 2)


def test_a_bundle_that_averages_symmetries_is_judged_so(data: str, recipe: Path, tmp_path: Path) -> None:
    text = RECIPE.replace('positive = "star"', 'positive = "star"\nsymmetries = 8')
    (tmp_path / "eight.toml").write_text(text + NO_TYPICALITY)
    result = compare(tmp_path / "eight.toml", data=data, out=tmp_path / "c", folds=0, methods=["network"], repeats=20)
    card = ModelBundle.load(tmp_path / "c" / "network" / "test").card
    assert result.table[0]["nll"]["value"] == pytest.approx(card.metrics["test"]["nll"], rel=1e-4)


def test_leaks_stop_a_comparison_and_memory_is_bounded(recipe: Path, data: str, tmp_path: Path) -> None:
    image = gaussians(np.zeros((60, 2)), np.random.default_rng(0))
    kind = np.tile([1, 2], 60)
    twice = write_stamps(str(tmp_path / "t.zarr"), np.concatenate([image, image]), {"kind": kind})
    with pytest.raises(InputError, match="very pixels"):
        compare(recipe, data=twice, out=tmp_path / "a", methods=["cart"])
    (tmp_path / "small.toml").write_text(RECIPE + "memory = 100_000.0\n")
    with pytest.raises(InputError, match=r"pixels of 240 objects take .* without them, cart, bagging, random_forest"):
        compare(tmp_path / "small.toml", data=data, out=tmp_path / "b", folds=2, methods=["svm_pca"])


@pytest.mark.slow
def test_fresh_objects_instead_of_a_test_side(data: str, recipe: Path, tmp_path: Path) -> None:
    fresh = class_stamps(str(tmp_path / "fresh.zarr"), 100, seed=7)
    result = compare(recipe, data=data, test=fresh, out=tmp_path / "c", methods=["network", "svm"], repeats=20)
    assert (result.objects, result.folds) == (100, 0)
    table = pq.read_table(tmp_path / "c" / "predictions.parquet").to_pandas()
    kind = LabelledStamps([fresh]).labels["kind"].to_numpy()
    assert (table.truth == np.where(kind[table.row] == 1, "galaxy", "star")).all()
    with pytest.raises(InputError, match=r"\d+ test objects have the pixels of an object that is learned from"):
        compare(recipe, data=data, test=data, out=tmp_path / "d", methods=["cart"])
    stars = write_stamps(
        str(tmp_path / "stars.zarr"),
        np.random.default_rng(1).integers(0, 99, (20, 2, SIZE, SIZE), np.uint8),
        {"kind": np.full(20, 2)},
        bands=("g", "r"),
    )
    with pytest.raises(InputError, match=r"the test split lacks a class \(galaxy 0, star 20\)"):
        compare(recipe, data=data, test=stars, out=tmp_path / "d", methods=["cart"])


REGRESS = """
task = "regress"
[settings]
targets = ["size", "flux"]
logarithmic = ["flux"]
[network_arguments]
widths = [4, 8]
hidden = 8
[training]
epochs = 4
batch_size = 32
learning_rate = 0.01
"""


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Round Gaussians with their widths and fluxes, and a recipe that measures both."""
    folder = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(3)
    size, flux = rng.uniform(1.5, 4, 300), rng.uniform(500, 2000, 300)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    width = size[:, None, None]
    image = flux[:, None, None] * np.exp(-0.5 * (x**2 + y**2) / width**2) / (2 * np.pi * width**2)
    image = (image + rng.normal(size=image.shape))[:, None].astype(np.float32)
    (folder / "sizes.toml").write_text(REGRESS + NO_TYPICALITY)
    return write_stamps(str(folder / "sizes.zarr"), image, {"size": size, "flux": flux}), folder / "sizes.toml"


@pytest.mark.slow
def test_a_regression_is_compared_by_its_errors(sizes: tuple[str, Path], tmp_path: Path) -> None:
    data, recipe = sizes
    train(recipe, data=data, out=tmp_path / "finished", epochs=8)
    result = compare(recipe, data=data, out=tmp_path / "c", folds=0, bundle=tmp_path / "finished", repeats=50)
    own = {"linear", "random_forest", "gradient_boosting", "svm", "mlp"}
    assert {line["method"] for line in result.table} == {"network", "finished", *own}
    errors = [line["rmse_size"]["value"] for line in result.table]
    assert errors == sorted(errors)
    for line in result.table:
        for name in ("rmse_size", "rmse_flux", "nmad_size", "outlier_fraction_flux"):
            assert line[name]["low"] <= line[name]["value"] <= line[name]["high"]
    table = pq.read_table(tmp_path / "c" / "predictions.parquet").to_pandas()
    assert table[table.method == "svm"].size_err.isna().all()  # no error bars
    best = table[table.method == result.table[0]["method"]]
    assert np.sqrt(np.mean((best["size"] - best.truth_size) ** 2)) == pytest.approx(errors[0])
    stored = LabelledStamps([data]).labels["size"].to_numpy()
    np.testing.assert_allclose(best.truth_size, stored[best.row])
    record = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert "classes" not in record
    assert "rmse size" in result.text
    classical = [line for line in result.table if line["method"] in own]
    assert min(line["rmse_size"]["value"] for line in classical) < 0.1
    assert min(line["rmse_flux"]["value"] for line in classical) < 150
    with pytest.raises(InputError, match="'bagging' tells classes apart, and the recipe's task 'regress' has none"):
        compare(recipe, data=data, out=tmp_path / "d", methods=["bagging"])
    assert (tmp_path / "c" / "compare.png").exists()


def test_ellipticities_are_learned_from_moments(tmp_path: Path) -> None:
    data = ellipticity_stamps(str(tmp_path / "e.zarr"), 240)
    recipe = tmp_path / "e.toml"
    recipe.write_text('task = "ellipticity"\n[settings]\nstamp_size = 24\npsf = "none"\n')
    result = compare(recipe, data=data, out=tmp_path / "c", folds=2, methods=["svm", "linear"], repeats=20)
    assert result.objects == 240
    for line in result.table:
        assert line["rmse_e1"]["value"] < 0.1  # of 0.23
        assert line["rmse_e2"]["value"] < 0.1


def test_a_regression_has_a_learning_curve(sizes: tuple[str, Path], tmp_path: Path) -> None:
    data, recipe = sizes
    result = learning_curve(recipe, data=data, out=tmp_path / "l", sizes=[40, 80, 160], seeds=1, repeats=20)
    assert result.metric == "rmse_size"
    assert [(point["method"], point["size"]) for point in result.points] == [("network", n) for n in (40, 80, 160)]
    assert result.points[-1]["value"] < result.points[0]["value"]
    assert result.answers["network"].startswith("network: to reach rmse size")
    named = learning_curve(
        recipe, data=data, out=tmp_path / "l", sizes=[40, 80, 160], seeds=1, repeats=20, metric="nmad_flux", target=50.0
    )
    assert named.metric == "nmad_flux"
    with pytest.raises(InputError, match="no metric 'accuracy' for a learning curve: there are rmse_size, rmse_flux"):
        learning_curve(recipe, data=data, out=tmp_path / "l", seeds=1, metric="accuracy")
    with pytest.raises(InputError, match="must be above 0"):
        learning_curve(recipe, data=data, out=tmp_path / "l", seeds=1, target=-1.0)


@pytest.mark.shared_data
def test_real_galaxies_are_told_apart_by_shape_features(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "gz1_sdss_rgb64_dev.npz") as whole:
        np.savez(tmp_path / "half.npz", **{name: values[::2] for name, values in whole.items()})
    archive = tmp_path / "half.npz"
    keys = "images=x,label=y,object_id=objid"
    source = ingest([str(archive)], npz_map=keys, layout="nyxc", bands="R,G,B", out=str(tmp_path / "gz.zarr")).source
    (tmp_path / "gz.toml").write_text(
        'task = "classify"\n[settings]\nnames = { 0 = "elliptical", 1 = "spiral", 2 = "spiral", 3 = "edge_on" }\n'
        "leave_out = { label = [4, 5] }\n[split]\nfolds = 5\n"
    )
    result = compare(tmp_path / "gz.toml", data=source, out=tmp_path / "c", folds=0, methods=["svm"], repeats=100)
    assert result.objects > 250
    assert result.table[0]["accuracy"]["value"] > 0.80
    assert result.table[0]["balanced_accuracy_even"]["value"] > 0.73
    assert result.table[0]["ece"]["value"] < 0.06


# ---- learning curve ----------------------------------------------------------------------------------------------


def test_power_laws_are_found() -> None:
    sizes = np.array([100, 200, 400, 800, 1600, 3200], float)
    wanted = np.array([[0.05, 3.0, 0.6], [0.0, 1.0, 0.3], [0.2, 0.0, 0.0]])
    errors = np.stack([a + b * sizes**-c for a, b, c in wanted])
    found = fit_power_laws(sizes, errors, np.full(6, 0.01))
    refit = np.stack([a + b * sizes**-c for a, b, c in found])
    np.testing.assert_allclose(refit, errors, atol=5e-4)
    np.testing.assert_allclose(found[:2, 0], wanted[:2, 0], atol=0.02)
    falling = fit_power_laws(sizes, errors[:, ::-1], np.full(6, 0.01))
    assert (falling[:2, 1] == 0).all()


def curve(floor: float, spread: float) -> LearningCurve:
    rng = np.random.default_rng(0)
    samples = np.stack([np.abs(rng.normal(floor, spread, 400)), np.full(400, 3.0), np.full(400, 0.5)], axis=1)
    return LearningCurve(floor, 3.0, 0.5, samples)


def test_the_answer_is_a_number_with_an_interval_or_an_honest_no() -> None:
    judge = Score("accuracy", rising=True, bounded=True)
    found = curve(0.05, 0.005)
    assert found.needed(0.08)[0] == pytest.approx((3 / 0.03) ** 2)
    text = answer("svm", found, judge, 0.92, (200, 2000), 0.0)
    assert text.startswith("svm: to reach accuracy 0.92 you need about 8,000 more labels (95 %: ")
    assert "extrapolation" in answer("svm", found, judge, 0.94, (200, 2000), 0.0)
    assert "levels off at 0.950" in answer("svm", found, judge, 0.97, (200, 2000), 0.0)
    assert "are enough (95 %" in answer("svm", found, judge, 0.85, (200, 2000), 0.0)
    assert "smallest subset, 1,000 training objects, is enough" in answer("svm", found, judge, 0.85, (1000, 2000), 0.0)
    assert "show no error" in answer("svm", found, judge, 1.0, (200, 2000), 0.0)
    assert "no upper bound" in answer("svm", curve(0.05, 0.02), judge, 0.92, (200, 2000), 0.0)
    assert "fewer than three" in answer("svm", None, judge, 0.92, (200, 2000), 0.0)
    assert "about 9,000 more" in answer("svm", found, judge, 0.92, (200, 2000), 0.125)


def test_learning_curve_from_end_to_end(
    data: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"data": data, "out": tmp_path / "lc", "sizes": [24, 48, 96], "repeats": 30, "seeds": 2}
    result = learning_curve(recipe, methods=["cart"], **settings)
    assert [(point["method"], point["size"]) for point in result.points] == [("cart", 24), ("cart", 48), ("cart", 96)]
    assert all(point["low"] <= point["value"] <= point["high"] for point in result.points)
    assert result.answers["cart"].startswith("cart: to reach accuracy")
    record = json.loads((tmp_path / "lc" / "learning_curve.json").read_text())
    assert record["curves"]["cart"]["floor"]["low"] >= 0
    assert (tmp_path / "lc" / "learning_curve.png").exists()
    made = sorted(path.name for path in (tmp_path / "lc" / "pieces" / "cart").iterdir())
    assert made == [f"n{size}_s{seed}.parquet" for size in (24, 48, 96) for seed in (0, 1)]
    rows = [set(pq.read_table(tmp_path / "lc" / "pieces" / "cart" / name)["row"].to_pylist()) for name in made]
    assert all(one == rows[0] for one in rows)
    monkeypatch.setattr(predictions.classical, "Classifier", None)
    assert learning_curve(recipe, methods=["cart"], **settings).points == result.points
    few = ({"sizes": [4, 48, 96]}, "a subset of 4 training objects cannot be used: the validation split lacks a class")
    for wrong, words in (
        few,
        ({"sizes": [24, 5000]}, "sizes must lie"),
        ({"metric": "luck"}, "no metric 'luck'"),
        ({"target": 1.5}, "between 0 and 1"),
    ):
        with pytest.raises(InputError, match=words):
            learning_curve(recipe, methods=["cart"], **{**settings, **wrong})


def test_verbs(
    data: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (method_comparison, learning_curves):
        monkeypatch.setattr(module, "write_figure", lambda url, figure: None)
    common = [str(recipe), "--data", data]
    assert main(["compare", *common, "--out", str(tmp_path / "c"), "--folds", "2", "--methods", "cart"]) == 0
    assert "| cart" in capsys.readouterr().out
    options = ["--sizes", "24,48,96", "--methods", "network", "--seeds", "1", "--target", "0.9"]
    assert main(["learning-curve", *common, "--out", str(tmp_path / "l"), *options]) == 0
    assert "network: to reach accuracy 0.9" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["learning-curve", *common, "--out", str(tmp_path / "l"), "--sizes", "2.5"])


def test_options_go_in_an_object_or_by_name_and_misspelt_ones_are_refused(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    with pytest.raises(InputError, match=r"unknown key 'fold' in the options of compare: did you mean 'folds'"):
        compare(recipe, data="nothing", out=out, fold=2)
    with pytest.raises(InputError, match=r"unknown key 'seed' in the options of learning-curve: did you mean 'seeds'"):
        learning_curve(recipe, data="nothing", out=out, options=CurveOptions(seeds=2), seed=1)
    changed = with_changes(CompareOptions, CompareOptions(folds=3), {"bundle": [out], "methods": ["cart"]}, "")
    assert changed == CompareOptions(folds=3, bundle=(str(out),), methods=("cart",))
