"""Accuracy against the number of labels, from the start and from a network that learned from other labelled objects.

python -m benchmarks --only few_known     # finished trainings are not repeated
"""

from __future__ import annotations

from dataclasses import replace

import torch

from astroml_plugin.training.recipe import Recipe
from benchmarks.few_labels import lines, scores
from benchmarks.harness import Section, scratch, shared_data, words_of
from benchmarks.small_data import SETS, small_recipe, stamps
from bundles.morphology import ingested
from tests.pages import table
from workflows.recipe import read_recipe
from workflows.train import train

TITLE = "Labels saved by what was learned elsewhere"
DRAWS = 3
ZOO = "gz1_sdss_rgb64_dev.npz"


def run() -> Section:
    """Accuracy against the number of labels (training and validation side together), from the start and from a network
    that learned from other labelled objects: for spirals of Galaxy Zoo 2 the recipe `classify`, trained on the three
    classes of Galaxy Zoo 1 (no object that is judged is among them); for stars and galaxies of Devasthal the bundle
    `objects`, which learned from simulations, judged by balanced accuracy on fields that are left out. Mean and
    standard error over draws; labels saved as above. Both arms have one recipe."""
    archives = {name: shared_data(SETS[name][0]) for name in ("gz2", "stargalaxy")}
    if None in archives.values() or (zoo := shared_data(ZOO)) is None:
        return Section(TITLE, "Not measured: there are no such images here (ASTROML_TEST_DATA).")
    torch.set_num_threads(1)
    folder, rows, data = f"{scratch()}/small_data", [], {}
    for name, start, recipe in (("gz2", _zoo(str(zoo), folder), None), ("stargalaxy", "objects", objects_recipe())):
        source = stamps(name, archives[name], SETS[name][1])  # type: ignore[arg-type]
        where = folder if recipe is None else f"{folder}/objects"
        plain = scores(name, source, where, None, DRAWS, recipe)
        helped = scores(name, source, f"{folder}/known", start, DRAWS, recipe)
        data[name] = {"from the start": plain.tolist(), "from elsewhere": helped.tolist()}
        rows += lines(name, plain, helped)
    head = ["objects", "labels", "from the start", "from elsewhere", "labels saved"]
    return Section(TITLE, f"{words_of(run)} {DRAWS} draws.\n\n{table(head, rows)}", data)


def objects_recipe() -> Recipe:
    """The recipe `objects` for stars and galaxies, trained as few labels are."""
    recipe = read_recipe("objects")
    settings = {**recipe.settings, "label": "label", "classes": ["galaxy", "star"], "class_weights": "balanced"}
    return replace(recipe, settings=settings, training=small_recipe("classify").training)


def _zoo(images: str, folder: str) -> str:
    """The bundle that learned the classes of Galaxy Zoo 1 as the recipe `classify` does."""
    recipe, zoo = small_recipe("classify"), read_recipe("morphology").settings
    settings = {**recipe.settings, **{name: zoo[name] for name in ("classes", "names", "leave_out")}}
    recipe = replace(recipe, settings={**settings, "label": "label"})
    return train(recipe, data=ingested(images, folder), out=f"{folder}/zoo").bundle
