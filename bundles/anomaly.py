"""How the bundle `anomaly` is made: simulate ordinary galaxies with the odd anomaly among them, train unlabelled."""

from __future__ import annotations

from dataclasses import replace

from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from bundles.training_sets import TrainingSet
from workflows.recipe import read_recipe
from workflows.train import Progress, train

COUNT = 24_576
"""Stamps of the training set, one in a hundred an anomaly; one tenth is kept for validation and test."""

SEED = 301
"""Seed of the training set. Results are quoted for seeds of 900 and above."""

_DESCRIPTION = (
    "How odd a galaxy is among ordinary ones of r 19-22.5 at 0.2 arcsec per pixel and the LSST's ten-year depth, from "
    "g, r and i with or without variance, by which signs, and whether it may be an artefact. Trained on unlabelled "
    "simulated stamps, one in a hundred a merger, lens, ring or trail. 8-bit pictures of bands g, r, i are accepted, "
    "but this bundle was not trained on such and its score tells little about them."
)


def anomaly_recipe() -> Recipe:
    """The recipe `anomaly` for g, r, i of any kind of pixels: a wider judge, which sees strokes twice as often, and a
    lighter autoencoder."""
    recipe = replace(read_recipe("anomaly"), description=_DESCRIPTION)
    settings = {**recipe.settings, "bands": ["g", "r", "i"], "any_dtype": True, "label": "kind", "keep_latent": True}
    settings["centring"] = {"width": 1.4}
    settings["injection"] = {"pairs": 0.3, "strokes": 0.3, "neighbours": 0.25}
    network = {**recipe.network_arguments, "widths": [8, 16, 32], "activation": "relu", "judge": [2, 6, 12]}
    training = replace(recipe.training, epochs=14)
    return replace(recipe, settings=settings, network_arguments=network, training=training)


def training_set(count: int, seed: int = SEED) -> TrainingSet:
    """Simulated galaxies with the odd anomaly among them."""
    return TrainingSet(f"anomalies-{seed}-{count}", "anomalies", count, seed)


def make(
    *, out: str, scratch: str, scale: float = 1.0, recipe: Recipe | None = None, progress: Progress | None = None
) -> ModelBundle:
    """Make the bundle `anomaly`.

    Args:
        out: folder of the bundle.
        scratch: folder for some 2 GB of simulated stamps.
        scale: factor on the number of stamps; tests take a small part.
        recipe: another than `anomaly_recipe`.
        progress: told of each unit and epoch.

    Raises:
        InputError: the extra `sim` is not installed.
    """
    source = training_set(max(160, int(COUNT * scale))).made(scratch, progress=progress)
    train(recipe or anomaly_recipe(), data=[source], out=out, progress=progress)
    return ModelBundle.load(out)
