"""The methods of docs/course.md: networks from a perceptron to a residual CNN, classical classifiers and regressors.

python -m benchmarks --only course     # finished trainings are not repeated
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from astroml_plugin.training.recipe import Recipe
from benchmarks.harness import Section, scratch, shared_data
from bundles.morphology import FOLDS, ingested
from bundles.training_sets import TrainingSet
from tests.pages import table
from workflows.compare import compare
from workflows.recipe import read_recipe

TITLE = "The course: one step at a time"
EPOCHS = 20
BARE = {"hidden": [64] * 8, "batch_norm": False}
PLAIN = {"widths": [16, 32, 64], "hidden": 128, "dropout": 0.0, "batch_norm": False}
STEPS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "perceptron: no hidden layer": ("mlp", {"hidden": [], "batch_norm": False}, False),
    "multilayer perceptron: 256 and 64 units, relu": ("mlp", {"hidden": [256, 64], "batch_norm": False}, False),
    "eight layers of 64, sigmoid": ("mlp", {**BARE, "activation": "sigmoid"}, False),
    "eight layers of 64, tanh": ("mlp", {**BARE, "activation": "tanh"}, False),
    "eight layers of 64, relu": ("mlp", {**BARE, "activation": "relu"}, False),
    "eight layers of 64, relu, batch normalisation": ("mlp", {**BARE, "batch_norm": True}, False),
    "CNN": ("strided_cnn", PLAIN, False),
    "CNN, batch normalisation": ("strided_cnn", {**PLAIN, "batch_norm": True}, False),
    "CNN, batch normalisation, dropout 0.3": ("strided_cnn", {**PLAIN, "batch_norm": True, "dropout": 0.3}, False),
    "the same, turned and mirrored in training": ("strided_cnn", {**PLAIN, "batch_norm": True, "dropout": 0.3}, True),
    "residual network, turned and mirrored": ("residual_cnn", {"widths": [16, 32, 64, 128], "dropout": 0.1}, True),
}
"""Name -> network, its arguments, and whether stamps are turned and mirrored in training."""
FIGURES = ("accuracy", "balanced_accuracy", "nll")
CLASSIFIERS = ("cart", "bagging", "random_forest", "adaboost", "gradient_boosting", "svm", "mlp")
REGRESSORS = ("network", "linear", "random_forest", "gradient_boosting", "svm", "mlp")
SPLIT = (0.7, 0.1, 0.2)
"""Parts to train on, to stop at, and to judge."""
SHAPES = 5000
"""Simulated galaxies whose ellipticity is learned."""


def run() -> Section:
    """Galaxy Zoo 1 as in the section on morphology, one split: 70 % to train on, 10 % to stop at, 20 % judged."""
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return Section(TITLE, "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).")
    folder = str(scratch() / "course")
    source = ingested(str(archive), folder)
    rows = []
    for step in STEPS:
        out = f"{folder}/{re.sub('[^a-z0-9]+', '-', step)}"
        record = compare(_recipe(step), data=source, out=out, folds=0, methods=["network"]).table[0]
        rows.append([step, *_cells(record, FIGURES)])
    classes = classifiers(source, folder)
    shapes = regressors(folder)
    head = (
        f"{run.__doc__} {EPOCHS} epochs of the recipe `classify`, one seed; the weights of the lowest validation loss "
        "judge; 95 % by bootstrap over the objects judged.\n\n"
    )
    text = head + table(["step", *FIGURES], rows) + f"\n\n{classes['text']}\n\n{shapes['text']}"
    return Section(TITLE, text, {"rows": rows, "classifiers": classes["rows"], "regressors": shapes["rows"]})


def classifiers(source: str, folder: str) -> dict[str, Any]:
    """Classical classifiers on shape features of the same galaxies."""
    judged = compare("morphology", data=source, out=f"{folder}/classifiers", folds=FOLDS, methods=CLASSIFIERS)
    rows = [[record["method"], *_cells(record, FIGURES)] for record in judged.table]
    head = f"Classical classifiers on shape features of these galaxies, {FOLDS} folds, {judged.objects:,} objects.\n\n"
    return {"text": head + table(["method", *FIGURES], rows), "rows": rows}


def regressors(folder: str) -> dict[str, Any]:
    """Regressors of ellipticity on shape features and moments, beside the recipe's network with as few galaxies."""
    source = TrainingSet("shapes", "field-varying", SHAPES, 921, {"snr": (10.0, 200.0)}).made(folder)
    recipe = read_recipe("ellipticity")
    recipe = replace(recipe, split=replace(recipe.split, fractions=SPLIT))
    judged = compare(recipe, data=source, out=f"{folder}/regressors-one-split", folds=0, methods=REGRESSORS)
    figures = [name for name, value in judged.table[0].items() if isinstance(value, dict) and "low" in value]
    rows = [[record["method"], *_cells(record, figures, 4)] for record in judged.table]
    head = (
        f"Regressors of `e1` and `e2` on shape features and moments of stamp and PSF, beside the recipe's network: "
        f"{SHAPES:,} simulated galaxies (preset `field-varying`, S/N 10 to 200), split in the same way, "
        f"{judged.objects:,} judged.\n\n"
    )
    return {"text": head + table(["method", *figures], rows), "rows": rows}


def _cells(record: dict[str, Any], figures: Sequence[str], digits: int = 3) -> list[str]:
    return [
        f"{one['value']:.{digits}f} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"
        for one in (record[name] for name in figures)
    ]


def _recipe(step: str) -> Recipe:
    network, arguments, augment = STEPS[step]
    recipe, morphology = read_recipe("classify"), read_recipe("morphology")
    training = replace(recipe.training, epochs=EPOCHS, augment=augment, batch_size=64, patience=0)
    training = replace(training, learning_rate=0.002, weight_decay=0.001)
    return replace(
        recipe,
        network=network,
        network_arguments=arguments,
        settings={**morphology.settings, "balance": 0.0},
        training=training,
        split=replace(recipe.split, fractions=SPLIT),
    )
