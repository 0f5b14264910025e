"""The networks of docs/course.md on Galaxy Zoo morphology, from a perceptron to convolutions about the centre.

python -m benchmarks --only course     # finished trainings are not repeated
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from astroml_plugin.training.recipe import Recipe
from benchmarks.harness import Section, scratch, shared_data
from bundles.morphology import ingested
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


def run() -> Section:
    """Galaxy Zoo 1 as in the section on morphology, one split: 70 % to train on, 10 % to stop at, 20 % judged."""
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return Section(TITLE, "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).")
    folder = str(scratch() / "course")
    source = ingested(str(archive), folder)
    rows = []
    for number, step in enumerate(STEPS):
        record = compare(_recipe(step), data=source, out=f"{folder}/{number}", folds=0, methods=["network"]).table[0]
        scores = [
            f"{record[name]['value']:.3f} ({record[name]['low']:.3f} to {record[name]['high']:.3f})" for name in FIGURES
        ]
        rows.append([step, *scores])
    head = (
        f"{run.__doc__} {EPOCHS} epochs of the recipe `classify`, one seed; the weights of the lowest validation loss "
        "judge; 95 % by bootstrap over the objects judged.\n\n"
    )
    return Section(TITLE, head + table(["step", *FIGURES], rows), {"rows": rows})


def _recipe(step: str) -> Recipe:
    network, arguments, augment = STEPS[step]
    recipe, morphology = read_recipe("classify"), read_recipe("morphology")
    training = replace(recipe.training, epochs=EPOCHS, augment=augment, batch_size=64, patience=0)
    return replace(
        recipe,
        network=network,
        network_arguments=arguments,
        settings={**morphology.settings, "balance": 0.0},
        training=training,
        split=replace(recipe.split, fractions=(0.7, 0.1, 0.2)),
    )
