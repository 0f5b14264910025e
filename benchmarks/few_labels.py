"""Accuracy against the number of labels with and without pretraining: radio galaxies.

python -m benchmarks --only few_labels     # finished trainings are not repeated
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astroml_plugin.core.typing import F64
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import TrainExecution
from benchmarks.harness import Section, scratch, shared_data, words_of
from benchmarks.small_data import SETS, small_recipe, stamps
from bundles.morphology import ingested
from tests.pages import table
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.train import train

TITLE = "Labels saved by pretraining: radio galaxies"
DRAWS, FOLDS = 5, 5
LABELS = (36, 72, 145, 290)
STARS = (145, 290, 580)
"""Of stars and galaxies: one in five is a galaxy, and the few of 72 labels that stop a training may all be stars."""


def run() -> Section:
    """The radio galaxies."""
    return section(TITLE, ("radio",))


def section(title: str, names: Sequence[str], draws: int = DRAWS) -> Section:
    """The curves of some sets, over so many draws of labels."""
    archives = {name: shared_data(SETS[name][0]) for name in names}
    there = {name: path for name, path in archives.items() if path is not None}
    if len(there) < len(names):
        return Section(title, "Not measured: there are no such images here (ASTROML_TEST_DATA).")
    torch.set_num_threads(1)
    text, data = curves(there, str(scratch() / "small_data"), draws)
    return Section(title, text, data)


def curves(archives: Mapping[str, Path], folder: str, draws: int) -> tuple[str, dict[str, Any]]:
    """Accuracy against the number of labels (training and validation side together) of the recipe `classify`, from the
    start and from `pretrain_contrast`, which saw the stamps of all objects, of those that are judged too, and no label:
    mean and standard error over draws. Judged on a fifth that is left out; for stars and galaxies on fields that are
    left out, by balanced accuracy. Labels saved: how many times as many labels the start without pretraining needs for
    what pretraining reaches (interpolated in the logarithm of their number), with 95 % by bootstrap over draws; "above"
    where it does not get there with all that were tried."""
    rows, data = [], {}
    for name, archive in archives.items():
        source = stamps(name, archive, SETS[name][1])
        start = backbone(name, source, archives, folder)
        plain, helped = (scores(name, source, folder, one, draws) for one in (None, start))
        data[name] = {"False": plain.tolist(), "True": helped.tolist()}
        rows += lines(name, plain, helped)
    head = ["objects", "labels", "from the start", "pretrained", "labels saved"]
    return f"{words_of(curves)} {draws} draws.\n\n{table(head, rows)}", data


def scores(name: str, source: str, folder: str, start: str | None, draws: int, recipe: Recipe | None = None) -> F64:
    """(numbers of labels, draws) scores of trainings from the start, or from a bundle."""
    values = [
        [score(name, source, folder, start, count, draw, recipe) for draw in range(draws)] for count in labels_of(name)
    ]
    return np.array(values)


def lines(name: str, plain: F64, helped: F64) -> list[list[Any]]:
    """Rows of the table of one set, from (numbers of labels, draws) scores of both starts."""
    labels = labels_of(name)
    return [
        [SETS[name][2], count, _mean(plain[place]), _mean(helped[place]), _saved(labels, plain, helped, place)]
        for place, count in enumerate(labels)
    ]


def labels_of(name: str) -> tuple[int, ...]:
    """Numbers of labels of a set."""
    return STARS if name == "stargalaxy" else LABELS


def backbone(name: str, source: str, archives: Mapping[str, Path], folder: str) -> str:
    """The bundle that learned from stamps without labels: of all radio galaxies, of Galaxy Zoo 1 and 2 together."""
    data = [source]
    if name == "gz2" and (zoo := shared_data("gz1_sdss_rgb64_dev.npz")) is not None:
        data.append(ingested(str(zoo), folder))
    if name == "radio":
        keys = {key: key for key in ("images", "object_id")}
        out = f"{folder}/radio_all.zarr"
        data = [ingest([str(archives[name])], out=out, npz_map=keys, layout="ncyx", bands=SETS[name][1]).source]
    recipe = read_recipe("pretrain_contrast")
    recipe = replace(recipe, split=replace(recipe.split, leaks="drop"))
    return train(recipe, data=data, out=f"{folder}/backbones/{name}").bundle


def score(
    name: str, source: str, folder: str, start: str | None, labels: int, draw: int, recipe: Recipe | None = None
) -> float:
    """Accuracy, of stars and galaxies balanced accuracy, of one training on the objects left out."""
    recipe, fold = recipe or small_recipe("classify"), draw % FOLDS
    split = replace(recipe.split, fractions=(0.72, 0.08, 0.2), folds=FOLDS, fold=fold, leaks="drop")
    if name == "stargalaxy":
        split = replace(split, folds=0, fold=0, column=f"fold_{fold}")
    split = replace(split, limit=round(0.9 * labels), limit_seed=draw)
    recipe = replace(recipe, split=split, training=replace(recipe.training, seed=draw))
    out = f"{folder}/curves/{name}/{'start' if start is None else 'pretrained'}/{labels}/{draw}"
    result = train(recipe, data=source, out=out, execution=TrainExecution(from_bundle=start))
    return float(result.metrics["test"]["balanced_accuracy" if name == "stargalaxy" else "accuracy"])


def _mean(values: F64) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def _saved(labels: Sequence[int], plain: F64, helped: F64, place: int) -> str:
    """Labels saved at one number of labels, from scores (numbers of labels, draws) of both starts."""
    rng = np.random.default_rng(0)
    draws = plain.shape[1]
    drawn = [
        labels_saved(
            labels,
            plain[:, rng.integers(0, draws, draws)].mean(1),
            helped[place, rng.integers(0, draws, draws)].mean(),
            place,
        )
        for _ in range(1000)
    ]
    middle = labels_saved(labels, plain.mean(1), float(helped[place].mean()), place)
    low, high = np.percentile(drawn, (2.5, 97.5))
    most = labels[-1] / labels[place]
    return (
        f"{'above ' if middle >= most else ''}{middle:.1f} ({low:.1f} to {'above ' if high >= most else ''}{high:.1f})"
    )


def labels_saved(labels: Sequence[int], plain: F64, reached: float, place: int) -> float:
    """How many times `labels[place]` a start without pretraining needs for a score; at most what was tried.

    Args:
        labels: rising numbers of labels.
        plain: their scores without pretraining.
        reached: the score with pretraining at `labels[place]`.
        place: of the number of labels.
    """
    rising = np.maximum.accumulate(plain) + 1e-9 * np.arange(len(plain))
    needed = float(np.exp(np.interp(reached, rising, np.log(labels))))
    return needed / labels[place]
