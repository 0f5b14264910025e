"""How the bundle `objects` is made: simulate what a survey detects, and learn which kind each is.

Most stamps have one object in the middle, of all S/N and kinds in known shares. The others are what our own
segmentation finds on skies, off-centre and blended, with artefacts between.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.training import known_objects
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.card import Card
from astroml_plugin.training.recipe import Recipe
from bundles.detected import DetectedSet
from bundles.training_sets import TrainingSet
from workflows.recipe import read_recipe
from workflows.train import Progress, train

COUNT = 49_152
"""Stamps of the training set."""

SEED = 401
"""Seed of the training set. Results are quoted for seeds of 900 and above."""

DETECTED = DetectedSet(seed=470, skies=30, bands=("r",))
"""Skies whose detections are learned too."""

SNR = (6.0, 2000.0)
"""S/N of stars and galaxies."""


def training_set(count: int, seed: int = SEED, hst: str | None = None) -> TrainingSet:
    """Simulated detections, some of them real galaxies of a catalog."""
    options: dict[str, Any] = {"snr": SNR} | ({"hst": hst} if hst else {})
    return TrainingSet(f"detections-{seed}-{count}{'-hst' if hst else ''}", "detections", count, seed, options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of its own."""
    parser.add_argument("--hst", help="RealGalaxyCatalog of HST's galaxies, its table or folder: one in three is real")


def make(
    *,
    out: str,
    scratch: str,
    hst: str | None = None,
    scale: float = 1.0,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> ModelBundle:
    """Make the bundle `objects`.

    Args:
        out: folder of the bundle.
        scratch: folder for about 2 GB of simulated stamps and skies.
        hst: catalog of real galaxies; without one all are simulated.
        scale: factor on the number of stamps; tests take a small part.
        recipe: another than the recipe `objects`.
        progress: told of each unit and epoch.

    Raises:
        InputError: the extra `sim` is not installed.
    """
    sources = [training_set(max(512, int(COUNT * scale)), hst=hst).made(scratch, progress=progress)]
    sources += replace(DETECTED, skies=int(DETECTED.skies * scale)).made(scratch, progress=progress)
    recipe = recipe or read_recipe("objects")
    recipe = replace(recipe, split=replace(recipe.split, leaks="drop"))  # two detections may lie on one another
    train(recipe, data=sources, out=out, progress=progress)
    bundle = ModelBundle.load(out)
    made = ModelBundle.save(out, bundle.network(), without_domains(bundle.card), None, bundle.typicality_file())
    storage.remove(storage.join(out, known_objects.FILE))  # simulated objects: nobody measures on them again
    return made


def without_domains(card: Card) -> Card:
    """A card without the figures of each source: single skies tell nothing."""
    training = {name: value for name, value in card.training.items() if name != "domains"}
    metrics = {
        side: {name: value for name, value in figures.items() if name != "domains"}
        for side, figures in card.metrics.items()
    }
    return replace(card, training=training, metrics=metrics)
