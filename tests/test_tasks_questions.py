"""Yes-or-no questions that are learned beside classes, from objects of which one, the other or both are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.classification.task import ClassifyTask
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from workflows.compare import compare
from workflows.evaluate import evaluate
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.train import train

torch.set_num_threads(1)

SETTINGS = {"label": "kind", "classes": ["round", "long"], "also": ["bright"], "missing": "leave_out"}


def task(**settings: object) -> ClassifyTask:
    given = {"bands": ["r"], "stamp_size": 16, "normalisation": {"scales": [1.0]}, **SETTINGS, **settings}
    made = ClassifyTask.from_settings(given)
    assert isinstance(made, ClassifyTask)
    return made


def table() -> pa.Table:
    return pa.table({"kind": ["round", None, "long", None], "bright": pa.array([None, True, False, None])})


def test_what_is_known_is_learned() -> None:
    one = task()
    assert (one.outputs, one.network_outputs, one.labels) == (2, 3, ("kind", "bright"))
    assert [column.name for column in one.columns()] == ["p_round", "p_long", "p_bright", "label"]
    assert one.usable(table()).tolist() == [True, True, True, False]
    targets = one.targets(table().slice(0, 3))
    np.testing.assert_array_equal(targets, [[1, 0, np.nan], [np.nan, np.nan, 1], [0, 1, 0]])
    np.testing.assert_allclose(one.class_shares(targets), 0.5)
    outputs = torch.tensor([[2.0, 0.0, 9.0], [5.0, -5.0, 1.0], [0.0, 3.0, -2.0]], requires_grad=True)
    loss = one.loss(outputs, targets)
    log = torch.nn.functional.logsigmoid
    terms = [-log(torch.tensor(x)) for x in (2.0, 1.0, 3.0, 2.0)]
    torch.testing.assert_close(loss, sum(terms) / 3)
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 2] == 0
    assert (outputs.grad[1, :2] == 0).all()
    found = one.metrics(outputs.detach(), targets)
    assert found["count"] == 2
    assert found["accuracy"] == 1
    assert found["auroc_bright"] == 1


def test_a_table_without_the_question_or_without_the_class_is_one_of_the_other() -> None:
    one = task()
    assert torch.isnan(one.targets(table().select(["kind"]).slice(0, 1))[:, 2]).all()
    answers = one.targets(table().select(["bright"]).slice(1, 2))
    assert torch.isnan(answers[:, :2]).all()
    assert answers[:, 2].tolist() == [1, 0]
    assert one.truth(table())["label"].tolist() == ["round", None, "long", None]


def test_questions_need_a_label_that_may_be_missing() -> None:
    with pytest.raises(InputError, match="leave_out"):
        task(missing="refuse")
    assert type(task(also=[])) is ClassifyTask


def stores(folder: Path) -> list[str]:
    """Two stores: blobs with their kind, and others of which it is known whether they are bright."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] - 8.0
    long, bright = rng.random(240) < 0.5, rng.random(240) < 0.5
    shape = np.exp(-0.5 * (x**2 + y**2 / np.where(long, 9.0, 1.0)[:, None, None]))
    images = np.where(bright, 30.0, 10.0)[:, None, None] * shape + rng.normal(0, 1, (240, 16, 16))
    urls = []
    for number, (name, values) in enumerate((("kind", np.where(long, "long", "round")), ("bright", bright))):
        part = slice(120 * number, 120 * (number + 1))
        given = {"images": images[part, None].astype(np.float32), "object_id": np.arange(240)[part]}
        np.savez(folder / f"{name}.npz", bands=np.array(["r"]), **given, **{name: values[part]})
        urls.append(ingest([str(folder / f"{name}.npz")], out=str(folder / f"{name}.zarr")).source)
    return urls


def test_it_trains_from_two_stores_and_gives_both(tmp_path: Path) -> None:
    urls = stores(tmp_path)
    plain = {
        "task": "classify",
        "network": "strided_cnn",
        "settings": {**SETTINGS, "resize": "fit"},
        "network_arguments": {"widths": [8, 16], "hidden": 16},
        "training": {"epochs": 8, "batch_size": 16, "learning_rate": 0.01, "patience": 0},
        "split": {"fractions": [0.6, 0.2, 0.2]},
        "typicality": {"fit": False},
    }
    recipe = Recipe.from_mapping(plain)
    train(recipe, data=urls, out=str(tmp_path / "bundle"))
    metrics = ModelBundle.load(str(tmp_path / "bundle")).card.metrics["test"]
    assert metrics["accuracy"] > 0.8
    assert metrics["auroc_bright"] > 0.9
    result = infer(urls[1], bundle=str(tmp_path / "bundle"), out=str(tmp_path / "catalog"))
    assert "p_bright" in Catalog.open(result.catalog).schema.names
    found = compare(recipe, data=urls, out=str(tmp_path / "compare"), folds=2, methods=["network"])
    assert found.table[0]["accuracy"]["value"] > 0.65
    told = evaluate(urls[0], bundle=str(tmp_path / "bundle"), out=str(tmp_path / "evaluation"))
    assert told is not None
