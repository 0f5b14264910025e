"""The default recipe on a few hundred labels: FRI and FRII of FIRST.

python -m benchmarks --only small_data     # finished trainings are not repeated
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from astroml_plugin.core.typing import F64, Array
from astroml_plugin.training.checkpoint import read_log
from astroml_plugin.training.predictions import NETWORK
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.settings import TrainingSettings
from benchmarks.harness import Section, scratch, shared_data, words_of
from tests.pages import table
from workflows.compare import compare
from workflows.ingest import ingest
from workflows.recipe import read_recipe

TITLE = "Few labels: radio galaxies"
FOLDS = 5
SETS = {
    "radio": ("radio/mirabest_first100_dev.npz", "L", "FRI or FRII, sure, FIRST"),
    "gz2": ("gz2/gz2_rgb64_spiral_dev.npz", "R,G,B", "spiral or not, Galaxy Zoo 2, 300 labels"),
    "stargalaxy": ("stargalaxy/aries_stargalaxy64_dev.npz", "R", "star or galaxy, new fields"),
}
ARMS = ("classify", "classify, 12 epochs of 128", "svm", "random_forest", "adaboost", "bagging")
_CLASSICAL = ARMS[2:]


def run() -> Section:
    """The radio galaxies."""
    return section(TITLE, ("radio",))


def section(title: str, names: Sequence[str]) -> Section:
    """Five folds of the developers' halves, objects of one fold judged by networks that saw none of them (for stars and
    galaxies none of their field): accuracy and balanced accuracy with 95 % by bootstrap over objects, the lowest and
    highest fold, core-seconds of a network's training, and how many of the five said that they had not converged."""
    torch.set_num_threads(1)
    rows = []
    for name in names:
        path, bands, words = SETS[name]
        archive = shared_data(path)
        if archive is None:
            return Section(title, "Not measured: there are no images of few labels here (ASTROML_TEST_DATA).")
        source = stamps(name, archive, bands)
        rows += [[words, arm, *_judged(name, source, arm)] for arm in ARMS]
    head = ["objects", "method", "accuracy", "balanced accuracy", "folds", "core-seconds", "not converged"]
    told = f"{words_of(section)}\n\n"
    return Section(title, told + table(head, rows), {"rows": rows})


def stamps(name: str, archive: Path, bands: str) -> str:
    """The URL of the stamps with the column `label`, and for stars and galaxies one column per fold with its side."""
    folder = scratch() / "small_data"
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(archive) as whole:
        values = {key: whole[key] for key in whole if whole[key].ndim}
    columns = {key: values[key] for key in ("images", "object_id")}
    if name == "radio":
        kept = values["sure"] & (values["fr"] != "hybrid")
        columns = {key: column[kept] for key, column in {**columns, "label": values["fr"]}.items()}
    elif name == "gz2":
        columns["label"] = np.where(values["spiral"], "spiral", "other")
    else:
        columns |= {"label": values["kind"], **_sides(values["field"])}
    chosen = folder / f"{name}.npz"
    if not chosen.exists():
        np.savez(chosen, **columns)
    keys = {key: key for key in columns}
    out = str(folder / f"{name}.zarr")
    return ingest([str(chosen)], out=out, npz_map=keys, layout="ncyx", bands=bands).source


def _sides(field: Array) -> dict[str, Array]:
    """Fold column -> side of each object: whole fields are judged, a ninth of the other objects stops the training."""
    names, counts = np.unique(field, return_counts=True)
    group, load = {}, np.zeros(FOLDS)
    for place in np.argsort(-counts, kind="stable"):
        group[names[place]] = int(load.argmin())
        load[load.argmin()] += counts[place]
    fold = np.array([group[one] for one in field])
    sides = {}
    for number in range(FOLDS):
        held = np.random.default_rng(number).random(len(field)) < 1 / 9
        side = np.where(held, "validation", "train")
        sides[f"fold_{number}"] = np.where(fold == number, "test", side)
    return sides


def _judged(name: str, source: str, arm: str) -> list[str]:
    """Cells of one line."""
    network = arm if arm in _CLASSICAL else NETWORK
    recipe = small_recipe(arm)
    out = f"{scratch()}/small_data/{name}/{arm.replace(', ', '-').replace(' ', '_')}"
    folds = []
    if name == "stargalaxy":
        for fold in range(FOLDS):
            chosen = replace(recipe, split=replace(recipe.split, column=f"fold_{fold}", leaks="drop"))
            compare(chosen, data=source, out=f"{out}/{fold}", folds=0, methods=(network,))
            folds.append(_predicted(f"{out}/{fold}"))
    else:
        limited = replace(recipe, split=replace(recipe.split, limit=270 if name == "gz2" else 0))
        compare(limited, data=source, out=out, folds=FOLDS, methods=(network,))
        whole = _predicted(out)
        folds = [{key: values[whole["fold"] == fold] for key, values in whole.items()} for fold in range(FOLDS)]
    return [*_scores(folds), *(_trainings(out) if network == NETWORK else ("", ""))]


def small_recipe(arm: str) -> Recipe:
    """The recipe of an arm, for any classes in the column `label`."""
    recipe = read_recipe("classify")
    kept = {name: value for name, value in recipe.settings.items() if name == "normalisation"}
    recipe = replace(recipe, settings={**kept, "label": "label"})
    if "12 epochs" in arm:
        given = recipe.training
        fixed = TrainingSettings(
            epochs=12, learning_rate=given.learning_rate, weight_decay=given.weight_decay, seed=given.seed
        )
        return replace(recipe, training=fixed)
    return recipe


def _predicted(folder: str) -> dict[str, Array]:
    """Columns of predictions.parquet: fold, truth, and the class that is most probable."""
    found = pq.read_table(f"{folder}/predictions.parquet")
    names = [name for name in found.column_names if name.startswith("p_")]
    probabilities = np.stack([found[name].to_numpy() for name in names], axis=1)
    called = np.array([name.removeprefix("p_") for name in names])[probabilities.argmax(1)]
    return {"fold": found["fold"].to_numpy(), "truth": np.array(found["truth"].to_pylist()), "called": called}


def _trainings(folder: str) -> tuple[str, str]:
    """Mean core-seconds of the trainings below a folder, and how many of them say that they have not converged."""
    cards = sorted(Path(folder).rglob("card.json"))
    spent = [sum(record["cpu_seconds"] for record in read_log(str(card.parent))) for card in cards]
    doubts = sum("convergence" in json.loads(card.read_text())["training"] for card in cards)
    return f"{np.mean(spent):.0f}", f"{doubts} of {len(cards)}"


def _scores(folds: list[dict[str, Array]]) -> list[str]:
    """Accuracy and balanced accuracy with intervals, and the range of the folds' accuracies."""
    truth, called = (np.concatenate([fold[key] for fold in folds]) for key in ("truth", "called"))
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(truth), len(truth)) for _ in range(1000)]
    cells = []
    for score in (_accuracy, balanced):
        low, high = np.percentile([score(truth[rows], called[rows]) for rows in drawn], (2.5, 97.5))
        cells.append(f"{score(truth, called):.3f} ({low:.3f} to {high:.3f})")
    each: F64 = np.array([_accuracy(fold["truth"], fold["called"]) for fold in folds])
    return [*cells, f"{each.min():.3f} to {each.max():.3f}"]


def _accuracy(truth: Array, called: Array) -> float:
    return float((truth == called).mean())


def balanced(truth: Array, called: Array) -> float:
    """Balanced accuracy of what (n,) objects are called."""
    right: Mapping[Any, float] = {name: float((called[truth == name] == name).mean()) for name in np.unique(truth)}
    return float(np.mean(list(right.values())))
