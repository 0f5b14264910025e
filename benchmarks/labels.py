"""How many labels Galaxy Zoo morphology needs: the recipe's network and classical methods on growing subsets.

python -m benchmarks --only labels     # finished pieces are not repeated
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from astroml_plugin.training.predictions import NETWORK
from benchmarks.harness import Section, scratch, shared_data
from benchmarks.morphology import ASKED
from bundles.morphology import ingested
from tests.pages import table
from workflows.learning_curve import learning_curve
from workflows.recipe import read_recipe

TITLE = "How many labels morphology needs"
METHODS = (NETWORK, "mlp", "random_forest")
SIZES = (300, 600, 1200, 2400)
SEEDS = 3


def run() -> Section:
    """The images and classes of the section before."""
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return Section(TITLE, "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).")
    folder = str(scratch() / "morphology")
    recipe = read_recipe("morphology")
    curve = learning_curve(
        replace(recipe, split=replace(recipe.split, fractions=(0.75, 0.05, 0.2))),
        data=ingested(str(archive), folder),
        out=f"{folder}/learning-curve",
        sizes=SIZES,
        methods=METHODS,
        target=ASKED["accuracy"][1],
        seeds=SEEDS,
    )
    shutil.copy(f"{folder}/learning-curve/learning_curve.png", "docs/figures/morphology_learning_curve.png")
    head = f"{run.__doc__} Nested subsets, {SEEDS} of each size, one test side (a fifth of the objects).\n\n"
    return Section(TITLE, head + _curve(curve), {"points": curve.points, "answers": curve.answers})


def _curve(curve: Any) -> str:
    rows = [
        [point["method"], point["size"], f"{point['value']:.3f} ({point['low']:.3f} to {point['high']:.3f})"]
        for point in curve.points
    ]
    answers = "\n".join(f"- {sentence}" for sentence in curve.answers.values())
    return table(["method", "labels", curve.metric], rows) + "\n\n" + answers
