"""Train a bundle: labelled stamps and a recipe in, a folder with weights and card out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import texts
from astroml_plugin.cutting import CutoutOptions
from astroml_plugin.cutting.labels import labelled
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.distributed import is_first
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import Progress, TrainExecution, train_bundle
from workflows.calibrate_response import calibrate_response
from workflows.notebook import shows_progress
from workflows.recipe import read_recipe


@dataclass(frozen=True, repr=False)
class TrainResult(Result):
    """A finished training."""

    bundle: str
    """Path or URL of the bundle."""
    epochs: int
    """Epochs trained, over all runs that resumed."""
    best_epoch: int
    """The epoch whose weights the bundle has (the first is 0)."""
    objects: int
    """Objects in the training split."""
    metrics: dict[str, Any]
    """Metrics of the validation and the test split."""
    seconds: float
    """Wall time of this call."""
    convergence: str = ""
    """One sentence if the training has not converged; empty otherwise."""
    skipped: bool = False
    """Whether the same training was there already, finished."""
    notes: tuple[str, ...] = ()
    """Sentences about labelled objects of surveys that have no stamp, or stand twice."""


@shows_progress()
def train(
    recipe: Place | Recipe,
    *,
    data: Place | Sequence[Place],
    out: Place,
    epochs: int | None = None,
    seed: int | None = None,
    response: Place | None = None,
    execution: TrainExecution | None = None,
    progress: Progress | None = None,
    **labelling: Any,
) -> TrainResult:
    """Train a model and save it as a bundle; run again after an interruption, it continues.

    Started by `torchrun` on several GPUs or nodes, all its processes train together.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`.
        data: one or several `Stamps` with label columns, views, or a `Survey` with `labels`, whose tiles are cut.
        out: folder or URL of the bundle; log.jsonl, recipe.toml, training.png and gradients.png are put beside it.
        epochs: epochs of the training, instead of the recipe's.
        seed: seed of the training, instead of the recipe's.
        response: stamps of `simulate --pairs shear`, on which the shear response of an ellipticity bundle is fitted
            after the training (see `workflows.calibrate_response`), on the same device, by the first process alone.
        execution: device, processes, whether a checkpoint is continued, and a bundle to begin with.
        progress: told after every epoch.
        labelling: of Surveys: fields of `cutting.labels.LabelTable`: `labels`, the table (one, or one per Survey), and
            how it is read.

    Raises:
        InputError: recipe, labels or splits that cannot be used, or `out` holds something else.
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
    """
    started = time.perf_counter()
    url = storage.absolute(out)
    chosen = _overridden(read_recipe(recipe), epochs, seed)
    with labelled(texts(data), labelling, partial(_stamps_for, chosen)) as sources:
        bundle, skipped = train_bundle(chosen, sources.urls, url, execution, progress)
    if response is not None and not bundle.card.settings.get("response") and is_first():
        device = None if execution is None else execution.device
        bundle = calibrate_response(url, data=response, device=device).bundle
    return replace(_result(bundle, started, skipped=skipped), notes=sources.notes)


def _stamps_for(recipe: Recipe, survey: Survey) -> CutoutOptions:
    """Stamps of a survey as a recipe wants them: its size and bands, where it says them."""
    size, bands = recipe.settings.get("stamp_size"), recipe.settings.get("bands")
    return CutoutOptions(**({"size": size} if size else {}), bands=tuple(bands) if bands else None)


def _overridden(recipe: Recipe, epochs: int | None, seed: int | None) -> Recipe:
    training = recipe.training
    training = training if epochs is None else replace(training, epochs=epochs)
    training = training if seed is None else replace(training, seed=seed)
    return replace(recipe, training=training)


def _result(bundle: ModelBundle, started: float, *, skipped: bool = False) -> TrainResult:
    record = bundle.card.training
    return TrainResult(
        bundle.url,
        record["epochs"],
        record["best_epoch"],
        record["objects"]["train"],
        bundle.card.metrics,
        time.perf_counter() - started,
        record.get("convergence", ""),
        skipped,
    )
