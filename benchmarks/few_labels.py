"""145 labels of radio galaxies with and without another bundle's weights, and what reaches layers of deep networks.

python -m benchmarks --only few_labels     # finished trainings are not repeated
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astroml_plugin.training.checkpoint import read_log
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import TrainExecution
from astroml_plugin.training.settings import TrainingSettings
from benchmarks.harness import Section, scratch, shared_data
from benchmarks.small_data import stamps
from bundles.morphology import ingested
from tests.pages import table
from workflows.recipe import read_recipe
from workflows.train import train

TITLE = "145 labels, and another bundle's weights; gradients of deep networks"
DRAWS, LABELS, FOLDS = 10, 145, 5
ARMS = ("from the start", "from `morphology`", "from `morphology`, frozen")
DEPTHS = {
    "sigmoid": {"activation": "sigmoid", "batch_norm": False},
    "tanh": {"activation": "tanh", "batch_norm": False},
    "relu": {"activation": "relu", "batch_norm": False},
    "relu, batch normalisation": {"activation": "relu", "batch_norm": True},
}


def run() -> Section:
    """Fine-tuning, and vanishing gradients."""
    radio, zoo = (shared_data(name) for name in ("radio/mirabest_first100_dev.npz", "gz1_sdss_rgb64_dev.npz"))
    if radio is None or zoo is None:
        return Section(TITLE, "Not measured: there are no such images here (ASTROML_TEST_DATA).")
    torch.set_num_threads(1)
    folder = str(scratch() / "small_data")
    return Section(TITLE, f"{transferred(stamps('radio', radio, 'L'), folder)}\n\n{layers(str(zoo), folder)}")


def transferred(source: str, folder: str) -> str:
    """145 labels of FRI and FRII (training and validation side together), the network of `morphology`: accuracy of ten
    draws on the fifth that is left out, mean and standard deviation over draws, with the standard error of the mean."""
    rows = []
    for arm in ARMS:
        cards = [_drawn(source, folder, arm, draw) for draw in range(DRAWS)]
        scores = np.array([card["metrics"]["test"]["accuracy"] for card in cards])
        doubts = sum("convergence" in card["training"] for card in cards)
        told = f"{scores.mean():.3f} ± {scores.std(ddof=1) / np.sqrt(DRAWS):.3f}"
        rows.append([arm, told, f"{scores.std(ddof=1):.3f}", f"{scores.min():.3f} to {scores.max():.3f}", doubts])
    head = ["weights", "accuracy", "scatter of draws", "range", "not converged"]
    return f"{_words(transferred)}\n\n{table(head, rows)}"


def _drawn(source: str, folder: str, arm: str, draw: int) -> dict[str, Any]:
    """Card of the training of one draw."""
    recipe = read_recipe("morphology")
    training = TrainingSettings(learning_rate=0.002, weight_decay=0.01, seed=draw)
    split = replace(recipe.split, fractions=(0.72, 0.08, 0.2), folds=FOLDS, fold=draw % FOLDS)
    split = replace(split, limit=round(0.9 * LABELS), limit_seed=draw, leaks="drop")
    recipe = replace(
        recipe,
        settings={"label": "label", "normalisation": recipe.settings["normalisation"]},
        training=training,
        split=split,
        transfer=replace(recipe.transfer, frozen="frozen" in arm),
    )
    out = f"{folder}/transfer/{ARMS.index(arm)}/{draw}"
    start = "morphology" if "morphology" in arm else None
    train(recipe, data=source, out=out, execution=TrainExecution(from_bundle=start))
    card: dict[str, Any] = json.loads((Path(out) / "card.json").read_text())
    return card


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
    return f"{_words(layers)}\n\n{table(head, rows)}"


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


def _words(function: Any) -> str:
    return " ".join((function.__doc__ or "").split())
