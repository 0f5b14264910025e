"""Default recipes on a few hundred labels: FRI and FRII of FIRST, spirals of Galaxy Zoo 2, stars and galaxies by field.

python -m benchmarks --only small_data     # finished trainings are not repeated
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from astroml_plugin.core.typing import F64, Array
from astroml_plugin.training.predictions import NETWORK
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.settings import TrainingSettings
from benchmarks import few_labels
from benchmarks.harness import Section, scratch, shared_data
from tests.pages import table
from workflows.compare import compare
from workflows.ingest import ingest
from workflows.recipe import read_recipe

TITLE = "Few labels"
FOLDS = 5
SETS = {
    "radio": ("radio/mirabest_first100_dev.npz", "L", "FRI or FRII, sure, FIRST"),
    "gz2": ("gz2/gz2_rgb64_spiral_dev.npz", "R,G,B", "spiral or not, Galaxy Zoo 2, 300 labels"),
    "stargalaxy": ("stargalaxy/aries_stargalaxy64_dev.npz", "R", "star or galaxy, new fields"),
}
ARMS = ("classify", "classify, 12 epochs of 128", "morphology", "svm", "random_forest", "adaboost")


def run() -> Section:
    """Five folds of the developers' halves, objects of one fold judged by networks that saw none of them (for stars and
    galaxies none of their field): accuracy and balanced accuracy with 95 % by bootstrap over objects, the lowest and
    highest fold, seconds of one training on one core, and how many of the five said that they had not converged."""
    torch.set_num_threads(1)
    rows = []
    for name, (path, bands, words) in SETS.items():
        archive = shared_data(path)
        if archive is None:
            return Section(TITLE, "Not measured: there are no images of few labels here (ASTROML_TEST_DATA).")
        source = _stamps(name, archive, bands)
        rows += [[words, arm, *_judged(name, source, arm)] for arm in ARMS]
    head = ["objects", "method", "accuracy", "balanced accuracy", "folds", "training s", "not converged"]
    told = f"{' '.join((run.__doc__ or '').split())}\n\n"
    folder = str(scratch() / "small_data")
    more = few_labels.transferred(f"{folder}/radio.zarr", folder)
    zoo = shared_data("gz1_sdss_rgb64_dev.npz")
    deep = few_labels.layers(str(zoo), folder) if zoo is not None else ""
    return Section(TITLE, "\n\n".join([told + table(head, rows), more, deep]), {"rows": rows})


def _stamps(name: str, archive: Path, bands: str) -> str:
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
    network = arm if arm in ("svm", "random_forest", "adaboost") else NETWORK
    recipe = _recipe(arm)
    out = f"{scratch()}/small_data/{name}/{arm.replace(', ', '-').replace(' ', '_')}"
    folds, seconds, doubts = [], [], 0
    if name == "stargalaxy":
        for fold in range(FOLDS):
            chosen = replace(recipe, split=replace(recipe.split, column=f"fold_{fold}", leaks="drop"))
            made = compare(chosen, data=source, out=f"{out}/{fold}", folds=0, methods=(network,))
            folds.append(_predicted(f"{out}/{fold}"))
            seconds.append(made.table[0]["train_seconds"])
            doubts += _doubts(f"{out}/{fold}")
    else:
        limited = replace(recipe, split=replace(recipe.split, limit=270 if name == "gz2" else 0))
        made = compare(limited, data=source, out=out, folds=FOLDS, methods=(network,))
        whole = _predicted(out)
        folds = [{key: values[whole["fold"] == fold] for key, values in whole.items()} for fold in range(FOLDS)]
        seconds, doubts = [made.table[0]["train_seconds"]], _doubts(out)
    told = f"{doubts} of {FOLDS}" if network == NETWORK else ""
    return [*_scores(folds), f"{np.mean(seconds):.0f}", told]


def _recipe(arm: str) -> Recipe:
    """The recipe of an arm, for any classes in the column `label`."""
    recipe = read_recipe("morphology" if arm == "morphology" else "classify")
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


def _doubts(folder: str) -> int:
    """Trainings below a folder whose card says that they have not converged."""
    cards = [json.loads(path.read_text()) for path in Path(folder).glob("network/*/card.json")]
    return sum("convergence" in card["training"] for card in cards)


def _scores(folds: list[dict[str, Array]]) -> list[str]:
    """Accuracy and balanced accuracy with intervals, and the range of the folds' accuracies."""
    truth, called = (np.concatenate([fold[key] for fold in folds]) for key in ("truth", "called"))
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(truth), len(truth)) for _ in range(1000)]
    cells = []
    for score in (_accuracy, _balanced):
        low, high = np.percentile([score(truth[rows], called[rows]) for rows in drawn], (2.5, 97.5))
        cells.append(f"{score(truth, called):.3f} ({low:.3f} to {high:.3f})")
    each: F64 = np.array([_accuracy(fold["truth"], fold["called"]) for fold in folds])
    return [*cells, f"{each.min():.3f} to {each.max():.3f}"]


def _accuracy(truth: Array, called: Array) -> float:
    return float((truth == called).mean())


def _balanced(truth: Array, called: Array) -> float:
    right: Mapping[Any, float] = {name: float((called[truth == name] == name).mean()) for name in np.unique(truth)}
    return float(np.mean(list(right.values())))
