"""Networks and classical methods on the very same splits: one table with errors, and every probability behind it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.storage import finite
from astroml_plugin.evaluation import class_metrics, ranking_metrics
from astroml_plugin.evaluation.baselines import classical
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.splits import SplitSettings, split_record
from workflows.pieces import NETWORK, Piece, Pieces, Progress

FIGURES = ("accuracy", "balanced_accuracy", "balanced_accuracy_even", "macro_f1", "ece", "nll")
"""Figures of `class_metrics.classification` in the table; `balanced_accuracy_even` is that of the class that is most
probable where all classes are equally frequent (probabilities divided by the fractions among the objects judged)."""

SEARCH = ("auroc", "tpr0", "tpr10", *ranking_metrics.RATES)
"""Figures of `ranking_metrics.ranking` in the table, where the recipe names a positive class."""


@dataclass(frozen=True)
class CompareResult:
    """What a comparison found."""

    out: str
    """Folder of compare.json, table.md, compare.png and predictions.parquet."""
    objects: int
    """Objects that every method was judged on."""
    folds: int
    """0 for the ordinary test side."""
    table: list[dict[str, Any]]
    """One record per method, best accuracy first: figures with value, low and high; seconds of training (mean of the
    folds) and objects per second."""
    text: str
    """The table as Markdown."""
    seconds: float
    """Wall time of this call."""


def compare(
    recipe: str | Path | Recipe,
    *,
    data: str | Sequence[str],
    out: str | Path,
    folds: int = 5,
    methods: Sequence[str] | None = None,
    test: str | Sequence[str] = (),
    bundle: str | Path | Sequence[str | Path] = (),
    device: str | None = None,
    repeats: int = 500,
    progress: Progress | None = None,
) -> CompareResult:
    """Judge the recipe's network and classical methods on the same objects, none of which any of them has seen.

    With folds, every object is on the test side once and the predictions are pooled; within the rest of each fold a
    validation part stops the training and sets temperatures. Run again after an interruption, it continues.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`, of a task that classifies.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the results.
        folds: 0 takes the recipe's own split.
        methods: "network" and names of `baselines.classical.METHODS`; default all of them (simple_forest,
            gabor_svm and edges_logistic where there are two classes).
        test: sources to judge on instead of a test side of the data, all of them at once and without folds.
        bundle: finished bundles to judge as well; one that was trained on these data only with its own split.
        device: torch device of networks; default CUDA where there is one.
        repeats: bootstrap samples.
        progress: told after every piece.

    Raises:
        InputError: recipe, labels, splits or methods that cannot be used, or `out` holds something else.
    """
    started = time.perf_counter()
    given = [bundle] if isinstance(bundle, str | Path) else list(bundle)
    fresh = [test] if isinstance(test, str) else list(test)
    folds = 0 if fresh else folds
    pieces = Pieces(recipe, data, out, test=fresh, bundles=given, device=device)
    splits = _splits(pieces.recipe.split, folds)
    plan = pieces.plan(splits[0])
    chosen = [*(_usual(len(plan.task.settings.classes)) if methods is None else methods), *pieces.bundles]
    pieces.check(chosen)
    pieces.refuse_seen(plan)
    found: dict[str, list[Piece]] = {method: [] for method in chosen}
    for number, (fold, method) in enumerate((fold, method) for fold in range(len(splits)) for method in chosen):
        found[method].append(pieces.get(method, splits[fold], f"fold_{fold}" if folds else "test"))
        if progress is not None:
            progress("compared", number + 1, len(splits) * len(chosen), f"{method}, fold {fold}")
    classes = _one_set_of_classes(found)
    pooled, left_out = _pooled(found)
    table = [_record(method, found[method], pooled[method], plan.task, repeats) for method in found]
    table.sort(key=lambda record: -record["accuracy"]["value"])
    text = markdown(table)
    truth = next(iter(pooled.values())).truth
    record = {
        "task": pieces.recipe.task,
        "settings": pieces.recipe.settings,
        "split": split_record(pieces.recipe.split),
        "folds": folds,
        "data": {"digest": pieces.data.digest, "ids": [source.id for source in pieces.data.sources]},
        "judged": {"digest": pieces.judged.digest, "ids": [source.id for source in pieces.judged.sources]},
        "classes": {name: int((truth == number).sum()) for number, name in enumerate(classes)},
        "objects": len(truth),
        "left_out": left_out,
        "table": table,
    }
    storage.write_table(storage.join(pieces.out, "predictions.parquet"), _predictions(pieces, found, classes))
    storage.write_atomic(storage.join(pieces.out, "table.md"), text.encode())
    write_figure(storage.join(pieces.out, "compare.png"), _figure(table))
    storage.write_json(storage.join(pieces.out, "compare.json"), finite(record))
    return CompareResult(pieces.out, len(truth), folds, table, text, time.perf_counter() - started)


def _splits(split: SplitSettings, folds: int) -> list[SplitSettings]:
    if folds == 0:
        return [split]
    if folds < 2:
        raise InputError(f"folds ({folds}) must be 2 or more, or 0 for the recipe's own split")
    return [replace(split, folds=folds, fold=fold) for fold in range(folds)]


def _usual(classes: int) -> tuple[str, ...]:
    """All methods; those of lens searches only where one class is told from another."""
    rare = ("simple_forest", "gabor_svm", "edges_logistic")
    return NETWORK, *(name for name in classical.METHODS if classes == 2 or name not in rare)


def _one_set_of_classes(found: dict[str, list[Piece]]) -> list[str]:
    sets = {tuple(piece.about["classes"]) for pieces in found.values() for piece in pieces}
    if len(sets) != 1:
        raise InputError("the folds have different classes: name them all in `classes` in [settings] of the recipe")
    return list(sets.pop())


def _pooled(found: dict[str, list[Piece]]) -> tuple[dict[str, Piece], dict[str, int]]:
    """Per method the objects that all methods measured, over the folds, in row order; how many each could not."""
    whole = {}
    for method, pieces in found.items():
        rows = np.concatenate([piece.rows for piece in pieces])
        order = np.argsort(rows)
        probabilities = np.concatenate([piece.probabilities for piece in pieces])[order]
        truth = np.concatenate([piece.truth for piece in pieces])[order]
        good = np.isfinite(probabilities).all(1)
        whole[method] = Piece(rows[order][good], truth[good], probabilities[good], {})
    asked = sum(piece.about["objects"] for piece in next(iter(found.values())))
    left_out = {method: asked - len(piece.rows) for method, piece in whole.items()}
    common = next(iter(whole.values())).rows
    for piece in whole.values():
        common = np.intersect1d(common, piece.rows)
    kept = {method: np.isin(piece.rows, common) for method, piece in whole.items()}
    return {
        method: replace(
            piece, rows=common, truth=piece.truth[kept[method]], probabilities=piece.probabilities[kept[method]]
        )
        for method, piece in whole.items()
    }, left_out


def _record(method: str, pieces: Sequence[Piece], pooled: Piece, task: Any, repeats: int) -> dict[str, Any]:
    """One line of the table; labels are chosen as the recipe says, for all methods alike."""
    classes, positive = list(task.settings.classes), getattr(task.settings, "positive", "")
    chosen = task.class_numbers(pooled.probabilities)
    figures: dict[str, Any] = dict(
        class_metrics.classification(pooled.probabilities, pooled.truth, repeats, labels=chosen)
    )
    even = pooled.probabilities / np.maximum(np.bincount(pooled.truth, minlength=len(classes)), 1)
    even = even / even.sum(1, keepdims=True)
    figures["balanced_accuracy_even"] = class_metrics.classification(even, pooled.truth, repeats)["balanced_accuracy"]
    if positive in classes:
        place = list(classes).index(positive)
        figures |= ranking_metrics.ranking(pooled.probabilities[:, place], pooled.truth == place, repeats)
    spent = [piece.about["train_seconds"] for piece in pieces if "train_seconds" in piece.about]
    seconds = sum(piece.about["seconds"] for piece in pieces)
    return {
        "method": method,
        **figures,
        "trained": round(float(np.mean([piece.about["trained"] for piece in pieces]))),
        "train_seconds": float(np.mean(spent)) if spent else None,
        "objects_per_second": sum(piece.about["objects"] for piece in pieces) / max(seconds, 1e-9),
        "confusion": class_metrics.confusion(pooled.truth, chosen, len(classes)).tolist(),
    }


def _predictions(pieces: Pieces, found: dict[str, list[Piece]], classes: Sequence[str]) -> pa.Table:
    """Every probability: method, fold, row, object_id, truth, p_<class>."""
    ids = pieces.judged.labels["object_id"]
    tables = []
    for method, parts in found.items():
        for fold, piece in enumerate(parts):
            columns: dict[str, Any] = {
                "method": pa.array([method] * len(piece.rows)),
                "fold": np.full(len(piece.rows), fold, np.int32),
                "row": piece.rows,
                "object_id": ids.take(pa.array(piece.rows)),
                "truth": pa.array([classes[number] for number in piece.truth]),
            }
            columns |= {f"p_{name}": piece.probabilities[:, number] for number, name in enumerate(classes)}
            tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The records of `CompareResult.table` as a Markdown table, figures with their 95 % intervals."""
    names = [name for name in (*FIGURES, *SEARCH) if name in table[0]]
    heads = ["method", *(name.replace("_", " ") for name in names), "training s", "objects/s"]
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    for record in table:
        spent = record["train_seconds"]
        timing = ["" if spent is None else f"{spent:.1f}", f"{record['objects_per_second']:,.0f}"]
        lines.append([record["method"], *(_cell(record[name]) for name in names), *timing])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths)] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _cell(figure: dict[str, float]) -> str:
    if "low" not in figure:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def _figure(table: Sequence[dict[str, Any]]) -> Any:
    """Methods against the most telling figures, with their intervals; the best one on top."""
    from matplotlib.figure import Figure

    names = ["accuracy", "balanced_accuracy", "ece"]
    names = ["auroc", "tpr_fpr_1e-3", "ece"] if "auroc" in table[0] else names
    figure = Figure(figsize=(11, 1.4 + 0.28 * len(table)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True)
    places = np.arange(len(table))[::-1]
    colours = ["#c0392b" if record["method"] not in classical.METHODS else "#1b4f72" for record in table]
    for panel, name in zip(panels, names):
        values = np.array([[record[name][key] for key in ("low", "value", "high")] for record in table])
        for place, (low, value, high), colour in zip(places, values, colours):
            panel.plot([low, high], [place, place], color=colour, linewidth=1.5)
            panel.plot(value, place, "o", color=colour, markersize=5)
        panel.set(xlabel=name.replace("_", " "))
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [record["method"] for record in table])
    figure.suptitle("95 % intervals of the same objects; networks in red", fontsize=9)
    return figure
