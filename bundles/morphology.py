"""How the bundle `morphology` is made: ingest Galaxy Zoo images, cross-validate the recipe, train it on all of them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.predictions import NETWORK
from astroml_plugin.training.recipe import Recipe
from workflows.compare import compare
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.train import Progress, train

FOLDS = 5

_KEYS = {"images": "x", "label": "y", "object_id": "objid"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options beyond those of all bundles."""
    parser.add_argument(
        "--images", required=True, help="NPZ with x (N, 64, 64, 3) uint8, y (Galaxy Zoo 1 class) and objid"
    )
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"of the cross-validation ({FOLDS}); 0 for none")


def ingested(images: str, scratch: str, progress: Progress | None = None) -> str:
    """The URL of the stamps below `scratch`, with bands R, G, B."""
    out = storage.join(scratch, "galaxyzoo.zarr")
    return ingest([images], out=out, npz_map=_KEYS, layout="nyxc", bands="R,G,B", progress=progress).source


def make(
    *,
    out: str,
    scratch: str,
    images: str,
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
        folds: of the cross-validation; 0 leaves it out.
        scale: below 1 trains on so much of the training side; tests take a small part.
        recipe: another than the recipe `morphology`.
        progress: told of each epoch.

    Raises:
        InputError: an archive without those arrays.
    """
    source = ingested(images, scratch, progress)
    chosen = recipe or read_recipe("morphology")
    if scale < 1:
        chosen = replace(chosen, split=replace(chosen.split, limit=max(64, int(2500 * scale))))
    metrics = {} if not folds else _cross_validated(chosen, source, scratch, folds, progress)
    train(chosen, data=source, out=out, progress=progress)
    bundle = ModelBundle.load(out)
    card = replace(bundle.card, metrics={**bundle.card.metrics, **metrics})
    return ModelBundle.save(out, bundle.network(), card, bundle.known_objects(), bundle.typicality_file())


def _cross_validated(
    recipe: Recipe, source: str, scratch: str, folds: int, progress: Progress | None
) -> dict[str, Any]:
    place = storage.join(scratch, "cross-validation")
    found = compare(recipe, data=source, out=place, folds=folds, methods=[NETWORK], progress=progress)
    row = found.table[0]
    return {"cross_validation": {"folds": folds, "objects": found.objects, **row}}
