"""What reaches the first layers of deep networks: gradients and dead units by activation.

python -m benchmarks --only deep_layers     # finished trainings are not repeated
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from astroml_plugin.training.checkpoint import read_log
from astroml_plugin.training.recipe import Recipe
from benchmarks.harness import Section, scratch, shared_data, words_of
from bundles.morphology import ingested
from tests.pages import table
from workflows.recipe import read_recipe
from workflows.train import train

TITLE = "Gradients of deep networks"
DEPTHS = {
    "sigmoid": {"activation": "sigmoid", "batch_norm": False},
    "tanh": {"activation": "tanh", "batch_norm": False},
    "relu": {"activation": "relu", "batch_norm": False},
    "relu, batch normalisation": {"activation": "relu", "batch_norm": True},
}


def run() -> Section:
    """Galaxy Zoo 1."""
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return Section(TITLE, "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).")
    torch.set_num_threads(1)
    return Section(TITLE, layers(str(archive), str(scratch() / "small_data")))


def layers(archive: str, folder: str) -> str:
    """Eight dense layers of 64 units on Galaxy Zoo 1, six epochs: gradient of a weight of the first layer over that of
    the last (rms, of the last step of an epoch), and the largest share of dead units of a layer."""
    source = ingested(archive, folder)
    rows = []
    for name, given in DEPTHS.items():
        out = f"{folder}/layers/{name.replace(', ', '-').replace(' ', '_')}"
        train(_deep(given), data=source, out=out)
        log = read_log(out)
        card = json.loads((Path(out) / "card.json").read_text())
        score = f"{card['metrics']['validation']['accuracy']:.3f}"
        rows.append([name, _ratio(log[0]), _ratio(log[-1]), _dead(log[0]), _dead(log[-1]), score])
    head = ["activation", "gradients, first epoch", "last", "dead units, first epoch", "last", "accuracy (validation)"]
    return f"{words_of(layers)}\n\n{table(head, rows)}"


def _deep(given: dict[str, Any]) -> Recipe:
    recipe, morphology = read_recipe("classify"), read_recipe("morphology")
    return replace(
        recipe,
        network="mlp",
        network_arguments={"hidden": [64] * 8, **given},
        settings={**morphology.settings, "balance": 0.0},
        training=replace(recipe.training, epochs=6, batch_size=64, learning_rate=0.002, weight_decay=0.001),
    )


def _ratio(record: dict[str, Any]) -> str:
    values: Sequence[float] = list(record["gradients"].values())
    return f"{values[0] / values[-1]:.1e}"


def _dead(record: dict[str, Any]) -> str:
    return f"{max(record['dead_units'].values()):.2f}"
