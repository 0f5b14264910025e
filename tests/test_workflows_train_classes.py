"""Classes from labels in every form to a catalog, and the input that is refused on the way."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.settings import TrainingSettings
from astroml_plugin.training.typicality_fit import TypicalitySettings
from tests.training_samples import SIZE, class_stamps, write_stamps
from workflows.cli import main
from workflows.evaluate import evaluate
from workflows.infer import infer
from workflows.query import query
from workflows.train import train

torch.set_num_threads(1)


def recipe(network: str = "strided_cnn", arguments: dict | None = None, epochs: int = 6, **settings: object) -> Recipe:
    values = {"task": "classify", "network": network, "settings": settings}
    small = {"epochs": epochs, "batch_size": 32, "learning_rate": 0.01, "seed": 1}
    arguments = {"widths": [8, 16], "hidden": 16} if arguments is None else arguments
    no = TypicalitySettings(fit=False)
    return Recipe(**values, network_arguments=arguments, training=TrainingSettings(**small), typicality=no)


def blobs(count: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps (n, 1, SIZE, SIZE) that are wide or not, and have a companion or not."""
    rng = np.random.default_rng(seed)
    wide, pair = rng.random((2, count)) < 0.5
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    width = np.where(wide, 5.0, 1.5)[:, None, None]
    image = np.exp(-0.5 * (x**2 + y**2) / width**2) + rng.normal(0, 0.05, (count, SIZE, SIZE))
    image += pair[:, None, None] * np.exp(-0.5 * ((x - 8) ** 2 + (y - 8) ** 2))
    return image[:, None].astype(np.float32), wide, pair


def test_several_labels_from_text_to_catalog(tmp_path: Path) -> None:
    image, wide, pair = blobs()
    texts = [";".join(["wide"] * int(w) + ["pair"] * int(p)) for w, p in zip(wide, pair)]
    labels = {"label": pa.array([None if number < 5 else text for number, text in enumerate(texts)])}
    source = write_stamps(str(tmp_path / "s.zarr"), image, labels)
    chosen = recipe(multi_label=True, missing="leave_out", normalisation={"stretch": "asinh", "unit": "scale"})
    train(chosen, data=source, out=tmp_path / "kinds")
    model = ModelBundle.load(tmp_path / "kinds")
    assert model.card.training["left_out"] == 5
    assert [column.name for column in model.task().columns()] == ["p_pair", "p_wide", "label"]
    found = evaluate(source, bundle=tmp_path / "kinds", out=tmp_path / "r").metrics
    assert found["mean_auroc"] > 0.9
    infer(source, bundle=str(tmp_path / "kinds"), out=str(tmp_path / "c"))
    table = query(str(tmp_path / "c"), "SELECT label, p_wide FROM catalog ORDER BY object_id").to_arrow()
    assert set(table["label"].to_pylist()) <= {"", "pair", "wide", "pair;wide"}
    assert (["wide" in one for one in table["label"].to_pylist()] == (table["p_wide"].to_numpy() >= 0.5)).all()


def test_votes_with_counts_train_a_dense_network(tmp_path: Path) -> None:
    image, wide, _ = blobs()
    rng = np.random.default_rng(1)
    counts = rng.integers(5, 60, len(wide))
    share = rng.binomial(counts, np.where(wide, 0.85, 0.2)) / counts
    labels = {"f_wide": share, "f_small": 1 - share, "n": counts}
    source = write_stamps(str(tmp_path / "s.zarr"), image, labels)
    chosen = recipe("mlp", {"hidden": [16], "binning": 2}, label_columns=["f_wide", "f_small"], votes="n")
    train(chosen, data=source, out=tmp_path / "kinds")
    model = ModelBundle.load(tmp_path / "kinds")
    assert model.card.settings["training_prior"][0] == pytest.approx((share * counts).sum() / counts.sum(), abs=0.05)
    infer(source, bundle=str(tmp_path / "kinds"), out=str(tmp_path / "c"))
    table = query(str(tmp_path / "c"), "SELECT p_f_wide FROM catalog ORDER BY object_id").to_arrow()
    said = table["p_f_wide"].to_numpy()
    assert said[wide].mean() == pytest.approx(0.85, abs=0.12)  # the votes' fractions, not 0 and 1
    assert said[~wide].mean() == pytest.approx(0.2, abs=0.12)


def test_bands_in_another_order_give_the_same_catalog(tmp_path: Path) -> None:
    source = class_stamps(str(tmp_path / "gr.zarr"), count=120)
    names = {"1": "galaxy", "2": "star"}
    train(recipe(label="kind", names=names, epochs=2), data=source, out=tmp_path / "kinds")
    straight = evaluate(source, bundle=tmp_path / "kinds", out=tmp_path / "a").metrics
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (30, 2, SIZE, SIZE)).astype(np.uint8)
    kinds = {"kind": np.tile([1, 2], 15)}
    one = write_stamps(str(tmp_path / "one.zarr"), pixels, kinds, bands=("g", "r"))
    two = write_stamps(str(tmp_path / "two.zarr"), pixels[:, ::-1].copy(), kinds, bands=("r", "g"))
    for url, out in ((one, "c1"), (two, "c2")):
        infer(url, bundle=str(tmp_path / "kinds"), out=str(tmp_path / out))
    ask = "SELECT p_star FROM catalog ORDER BY object_id"
    values = [query(str(tmp_path / out), ask).to_arrow()["p_star"].to_numpy() for out in ("c1", "c2")]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
    assert straight["accuracy"] > 0.5
    floats = write_stamps(str(tmp_path / "f.zarr"), pixels.astype(np.float32), kinds, bands=("g", "r"))
    with pytest.raises(InputError, match="float32 pixels and the model was trained on uint8"):
        infer(floats, bundle=str(tmp_path / "kinds"), out=str(tmp_path / "c3"))
    odd = write_stamps(str(tmp_path / "o.zarr"), pixels, {"kind": np.tile([1, 3], 15)}, bands=("g", "r"))
    with pytest.raises(InputError, match="'3' 15 times; the classes are 1, 2"):
        evaluate(odd, bundle=tmp_path / "kinds", out=tmp_path / "e")


@pytest.mark.parametrize(
    ("labels", "settings", "words"),
    [
        (["a"] * 60, {}, "needs two classes or more, and the .* objects have only a"),
        (["a", "b"] * 30, {"classes": ["a", "c"]}, "'b' .* times; the classes are a, c"),
        (["a", "b"] * 30, {"classes": ["a", "b", "c"]}, r"the train split lacks a class \(a \d+, b \d+, c 0\)"),
        (["a", "b"] * 30, {"label": "kind"}, "label column 'kind' is missing: the data have"),
        (["a", None] * 30, {}, r'objects have no label .* missing = "leave_out"'),
        (["a", "b"] * 30, {"positive": "lens"}, "'lens' is none of a, b"),
        (["a", "b"] * 30, {"label_columns": ["label", "x"]}, "must be numbers or true and false, not"),
    ],
)
def test_labels_that_cannot_be_learned_are_one_sentence(
    tmp_path: Path, labels: list, settings: dict, words: str
) -> None:
    image, _, _ = blobs(60)
    source = write_stamps(str(tmp_path / "s.zarr"), image, {"label": pa.array(labels)})
    with pytest.raises(InputError, match=words):
        train(recipe(**settings), data=source, out=tmp_path / "kinds")
    assert not (tmp_path / "kinds" / "card.json").exists()


def test_the_command_refuses_a_network_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    source = class_stamps(str(tmp_path / "gr.zarr"), count=120)
    text = 'task = "classify"\nnetwork = "timm"\n[settings]\nlabel = "kind"\n[network_arguments]\nname = "resnet18"\n'
    (tmp_path / "r.toml").write_text(text)
    assert main(["train", str(tmp_path / "r.toml"), "--data", source, "--out", str(tmp_path / "b")]) == 2
    assert "pip install timm" in capsys.readouterr().err
