"""How the bundle `morphology` is made: ingest Galaxy Zoo images, cross-validate the recipe, train it on all of them.

With images of Galaxy Zoo 2 (`--spirals`), of which it is known whether they show spiral arms, both are learned
together: that question is one of its own beside the classes, `p_arms`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.evaluation import ranking_metrics
from astroml_plugin.tasks.augmentation import Warp
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.predictions import NETWORK
from astroml_plugin.training.recipe import Recipe
from workflows.compare import compare
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.train import Progress, train

FOLDS = 5

ARMS = "arms"
"""Name of the question whether a galaxy shows spiral arms."""

_SURE = 0.9
"""Probability of the class that is called from which on the card tells the accuracy, too."""

_KEYS = {"images": "x", "label": "y", "object_id": "objid"}
_SPIRALS = {"images": "images", ARMS: "spiral", "object_id": "object_id"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options beyond those of all bundles."""
    parser.add_argument(
        "--images", required=True, help="NPZ with x (N, 64, 64, 3) uint8, y (Galaxy Zoo 1 class) and objid"
    )
    parser.add_argument("--spirals", help="NPZ with images (N, 3, 64, 64) uint8, spiral (bool) and object_id")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"of the cross-validation ({FOLDS}); 0 for none")


def ingested(images: str, scratch: str, progress: Progress | None = None) -> str:
    """The URL of the stamps below `scratch`, with bands R, G, B."""
    out = storage.join(scratch, "galaxyzoo.zarr")
    return ingest([images], out=out, npz_map=_KEYS, layout="nyxc", bands="R,G,B", progress=progress).source


def ingested_spirals(spirals: str, scratch: str, progress: Progress | None = None) -> str:
    """The URL of the stamps of Galaxy Zoo 2 below `scratch`, with bands R, G, B and the label column `arms`."""
    out = storage.join(scratch, "spirals.zarr")
    return ingest([spirals], out=out, npz_map=_SPIRALS, bands="R,G,B", progress=progress).source


def joint_recipe() -> Recipe:
    """The recipe `morphology` for classes and arms together.

    Other brightness, colours (as of other redshifts) and sizes in training; both label sets are drawn in their numbers.
    """
    recipe = read_recipe("morphology")
    return replace(
        recipe,
        settings={**recipe.settings, "also": [ARMS], "missing": "leave_out"},
        network_arguments={**recipe.network_arguments, "directions": 32, "zoom": 0.15},
        training=replace(recipe.training, warp=Warp(gain=0.1, colour=0.05)),
    )


def make(
    *,
    out: str,
    scratch: str,
    images: str,
    spirals: str | None = None,
    folds: int = FOLDS,
    scale: float = 1.0,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> ModelBundle:
    """Make the bundle `morphology`.

    The card's test metrics are those of the pooled predictions of the cross-validation, each of an object that its
    network never saw; the network that ships is trained on all of the folds.

    Args:
        out: folder of the bundle.
        scratch: folder for stamps and cross-validation.
        images: the NPZ with keys x, y, objid.
        spirals: the NPZ with keys images, spiral, object_id; None: only classes are learned.
        folds: of the cross-validation; 0 leaves it out.
        scale: below 1 trains on so much of the training side; tests take a small part.
        recipe: another than the recipe `morphology`.
        progress: told of each epoch.

    Raises:
        InputError: an archive without those arrays.
    """
    sources = [ingested(images, scratch, progress)]
    if spirals:
        sources.append(ingested_spirals(spirals, scratch, progress))
    chosen = recipe or (joint_recipe() if spirals else read_recipe("morphology"))
    if scale < 1:
        chosen = replace(chosen, split=replace(chosen.split, limit=max(64, int(2500 * scale))))
    metrics = {} if not folds else _cross_validated(chosen, sources, scratch, folds, progress)
    train(chosen, data=sources, out=out, progress=progress)
    bundle = ModelBundle.load(out)
    card = replace(bundle.card, metrics={**bundle.card.metrics, **metrics})
    return ModelBundle.save(out, bundle.network(), card, bundle.known_objects(), bundle.typicality_file())


def _cross_validated(
    recipe: Recipe, sources: list[str], scratch: str, folds: int, progress: Progress | None
) -> dict[str, Any]:
    place = storage.join(scratch, "cross-validation")
    found = compare(recipe, data=sources, out=place, folds=folds, methods=[NETWORK], progress=progress)
    told = {"folds": folds, "objects": found.objects, **found.table[0]}
    return {"cross_validation": told | _further(recipe, sources, storage.join(place, "predictions.parquet"))}


def _further(recipe: Recipe, sources: list[str], predictions: str) -> dict[str, Any]:
    """Figures of the pooled predictions beside those of `compare`: of sure objects, and of the question."""
    table, labels = storage.read_table(predictions), LabelledStamps(sources).labels
    classes = recipe.settings["classes"]
    chances = np.stack([np.asarray(table[f"p_{name}"], np.float64) for name in classes], axis=1)
    true, sure = np.asarray(table["truth"].to_pylist(), object), chances.max(1) >= _SURE
    sure &= true != None  # noqa: E711
    right = np.array(classes, object)[chances.argmax(1)] == true
    accuracy = float(right[sure].mean()) if sure.any() else None
    told: dict[str, Any] = {"sure": {"probability": _SURE, "objects": int(sure.sum()), "accuracy": accuracy}}
    if ARMS in labels.column_names:
        answers = labels[ARMS].take(table["row"]).to_pandas()
        asked = answers.notna().to_numpy()
        yes = answers[asked].to_numpy(bool)
        for name in (ARMS, "spiral"):
            value = ranking_metrics.auroc(np.asarray(table[f"p_{name}"], np.float64)[asked], yes)
            told |= {f"{ARMS}_by_p_{name}": {"objects": int(asked.sum()), "auroc": value}}
    return told
