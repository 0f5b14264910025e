"""Probability densities of numbers: redshifts of simulated galaxies, redshifts and sizes of radio galaxies.

python -m benchmarks --only photoz     # finished trainings are not repeated
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.ensemble import RandomForestRegressor

from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import bootstrap, density_metrics
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import measure
from astroml_plugin.training.recipe import Recipe
from benchmarks.harness import Section, kept_arrays, scratch, shared_data, words_of
from tests.pages import table
from workflows.compare import compare
from workflows.evaluate import evaluate
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import train

TITLE = "Redshifts and sizes with their densities"
FOLDS = 5
TRAINED, TESTED = 12_000, 4_000
NUMBERS: dict[str, dict[str, Any]] = {
    "redshift": {"scale": "log1p", "limits": [0.0, 0.7], "outlier": 0.15},
    "size_arcsec": {"scale": "log", "limits": [3.0, 500.0], "outlier": 0.5},
}
"""Labels of the radio galaxies -> settings."""
_POINT = ("sigma_nmad", "bias", "outlier_fraction")
_WHOLE = ("coverage_683", "coverage_95", "crps", "pit_ks")
_APERTURE = 5
"""Radius in pixels (1 arcsec) of the fluxes that the forest is given."""
_HEAD = ["objects", "method", "σ NMAD", "bias", "outliers", "68.3 % holds", "95 % holds", "CRPS", "PIT, KS"]


def run() -> Section:
    """Both."""
    torch.set_num_threads(1)
    rows = simulated()
    archive = shared_data("radio/mirabest_first100_dev.npz")
    told = f"{words_of(simulated)}\n\n{table(_HEAD, rows)}"
    if archive is None:
        return Section(
            TITLE, f"{told}\n\nRadio galaxies: there are no images here (ASTROML_TEST_DATA).", {"rows": rows}
        )
    more = [row for name in NUMBERS for row in radio(str(archive), name)]
    return Section(TITLE, f"{told}\n\n{words_of(radio)}\n\n{table(_HEAD, more)}", {"rows": [*rows, *more]})


def simulated() -> list[list[str]]:
    """Recipe `photoz` on 12,000 galaxies of `simulate --preset redshifts` (i below 22.5), judged on 4,000 of another
    seed; a forest of 300 trees on fluxes in 1 arcsec of the same; one answer for all. Each with 95 % by bootstrap over
    objects; errors are (z - truth) / (1 + truth), outliers beyond 0.15."""
    folder = scratch() / "photoz"
    train_on, test_on = (
        simulate(out=folder / f"sky-{seed}", kind="stamps", preset="redshifts", count=count, seed=seed).source
        for seed, count in ((21, TRAINED), (22, TESTED))
    )
    train(read_recipe("photoz"), data=train_on, out=folder / "bundle")
    found = evaluate(test_on, bundle=folder / "bundle", out=folder / "report")
    rows = [["simulated, redshift", "recipe `photoz`", *_cells(found.metrics["catalog"]["densities"]["redshift"])]]
    features, truth = _fluxes(train_on)
    unseen, wanted = _fluxes(test_on)
    forest = RandomForestRegressor(300, min_samples_leaf=3, random_state=0, n_jobs=2)
    values = np.expm1(forest.fit(features, np.log1p(truth)).predict(unseen))
    rows.append(["", "forest on fluxes", *_cells(_points(values, wanted, "log1p", 0.15))])
    alike = np.full(len(wanted), np.median(truth))
    return [*rows, ["", "one answer for all", *_cells(_points(alike, wanted, "log1p", 0.15))]]


def _fluxes(source: str) -> tuple[F64, F64]:
    """asinh of the noise-scaled flux in an aperture of each band, their differences, and the redshifts."""
    stamps = Stamps.open(source)
    found = []
    for block in stamps.units():
        image, variance, _ = stamps.read_block(block.index)
        assert variance is not None
        axis = np.arange(image.shape[-1]) - image.shape[-1] // 2
        inside = np.hypot(*np.meshgrid(axis, axis)) <= _APERTURE
        flux = image[..., inside].sum(-1) / np.sqrt(variance[..., inside].sum(-1))
        found.append(np.arcsinh(flux))
    values = np.concatenate(found)
    colours = values[:, :-1] - values[:, 1:]
    return np.concatenate([values, colours], 1), stamps.labels()["redshift"].to_numpy().astype(np.float64)


def radio(archive: str, name: str) -> list[list[str]]:
    """Radio galaxies of FIRST (MiraBest, developers' half), 100 px at 1.8 arcsec, one band, the recipe `photoz` with
    the scale of the number; five folds, each object judged by a network that has not seen it; 95 % by bootstrap over
    objects. Sizes have relative errors, outliers beyond 0.5. Classical methods see catalogued shapes (`compare`)."""
    source = _ingested(archive)
    recipe = _recipe(name)
    pooled = kept_arrays(f"photoz/radio-{name}", lambda: _held_out(recipe, source, name))
    scale, outlier = NUMBERS[name]["scale"], NUMBERS[name]["outlier"]
    told = density_metrics.figures_of(
        pooled["value"], pooled["truth"], pooled["cells"], pooled["edges"], scale, outlier
    )
    rows = [[f"radio, {name}", "recipe `photoz`", *_cells(told)]]
    out = scratch() / "photoz" / f"compare-{name}"
    compare(recipe, data=source, out=out, folds=FOLDS, methods=("random_forest", "linear"))
    columns = pq.read_table(out / "predictions.parquet").to_pandas()
    for method, found in columns.groupby("method"):
        values, truth = found[name].to_numpy(float), found["truth"].to_numpy(float)
        rows.append(["", str(method), *_cells(_points(values, truth, scale, outlier))])
    alike = np.full(len(pooled["truth"]), np.median(pooled["truth"]))
    return [*rows, ["", "one answer for all", *_cells(_points(alike, pooled["truth"], scale, outlier))]]


def _ingested(archive: str) -> str:
    folder = scratch() / "photoz"
    keys = {key: key for key in ("images", "object_id", "ra", "dec", *NUMBERS)}
    return ingest([archive], out=str(folder / "radio.zarr"), npz_map=keys, layout="ncyx", bands=("L",)).source


def _recipe(name: str) -> Recipe:
    recipe = read_recipe("photoz")
    settings = {**recipe.settings, "target": name, **NUMBERS[name], "unit": "arcsec" if "size" in name else ""}
    arguments = {**recipe.network_arguments, "widths": [16, 32, 64]}
    split = replace(recipe.split, fractions=(0.72, 0.08, 0.2), folds=FOLDS, leaks="drop")
    return replace(recipe, settings=settings, network_arguments=arguments, split=split)


def _held_out(recipe: Recipe, source: str, name: str) -> dict[str, Any]:
    """Columns of all objects, each by the network of the fold that left it out."""
    data, parts = LabelledStamps(source), []
    edges = np.zeros(0)
    for fold in range(FOLDS):
        one = replace(recipe, split=replace(recipe.split, fold=fold))
        out = scratch() / "photoz" / f"radio-{name}-{fold}"
        train(one, data=source, out=out)
        model = ModelBundle.load(out)
        task: Any = model.task()
        edges = task.edges()
        rows = data.split(one.split, task.usable(data.labels))["test"]
        stream = StampBatches(data, rows, torch.zeros(len(rows)), bands=task.bands, batch_size=64)
        measured, kept = measure(task, model.network(fused=True), stream.ordered(), device="cpu")
        parts.append((np.asarray(measured.own[name]), np.asarray(measured.own[f"{name}_pdf"]), kept))
    rows = np.concatenate([part[2] for part in parts])
    return {
        "value": np.concatenate([part[0] for part in parts]).astype(np.float64),
        "cells": np.concatenate([part[1] for part in parts]).astype(np.float64),
        "truth": data.labels[name].to_numpy()[rows].astype(np.float64),
        "edges": edges,
    }


def _points(values: F64, truth: F64, scale: str, outlier: float) -> dict[str, Any]:
    """Point figures with intervals."""
    error = density_metrics.relative(values, truth, scale)

    def told(rows: I64) -> dict[str, float]:
        return density_metrics.point_statistics(error[rows], outlier)

    return bootstrap.row_intervals(told, len(error), 500, 0)


def _cells(found: Mapping[str, Any]) -> list[str]:
    return [_cell(found.get(name)) for name in (*_POINT, *_WHOLE)]


def _cell(figure: Mapping[str, float] | None) -> str:
    return "" if figure is None else f"{figure['value']:.4f} ({figure['low']:.4f}–{figure['high']:.4f})"
