"""Networks and other methods on the very same splits: one table with intervals, and every prediction behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result
from astroml_plugin.core.storage import finite
from astroml_plugin.evaluation.baselines import regressors
from astroml_plugin.evaluation.comparison import Comparison, Score, figure, markdown
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.feature_tables import methods_of
from astroml_plugin.training.method_prediction import MethodPrediction, number_columns, on_common_rows
from astroml_plugin.training.predictions import NETWORK, PredictionCache
from astroml_plugin.training.splits import SplitSettings, split_record

Predictions = dict[str, list[MethodPrediction]]
"""Method -> its predictions, one per fold."""


@dataclass(frozen=True)
class CompareOptions:
    """Choices of a comparison."""

    folds: int = 5
    """Parts of a cross-validation; 0 takes the recipe's own split."""
    methods: tuple[str, ...] | None = None
    """"network" and names of `baselines.classical.METHODS`, or of `baselines.regressors.METHODS` where numbers are
    measured; default: all of them for a task of classes (simple_forest, gabor_svm and edges_logistic where there are
    two), for numbers the network and the regressors on features."""
    test: Place | tuple[Place, ...] = ()
    """Sources to judge on instead of a test side of the data, all of them at once and without folds."""
    bundle: Place | tuple[Place, ...] = ()
    """Finished bundles to judge as well; one that was trained on these data only with its own split."""
    device: str | None = None
    """Torch device of networks; default: CUDA where there is one."""
    repeats: int = 500
    """Bootstrap samples."""


@dataclass(frozen=True, repr=False)
class CompareResult(Result):
    """Outcome of a comparison."""

    out: str
    """Folder of compare.json, table.md, compare.png and predictions.parquet."""
    objects: int
    """Objects that every method was judged on."""
    folds: int
    """0 for the ordinary test side."""
    table: list[dict[str, Any]]
    """One record per method, best first: figures with value, low and high; seconds of training (mean of the folds) and
    objects per second."""
    text: str
    """The table as Markdown."""
    left_out: str = ""
    """Objects left out because a bundle was trained on them, in words; empty where there are none."""
    seconds: float = 0.0
    """Wall time of the call."""


def compare_methods(
    cache: PredictionCache, options: CompareOptions, progress: Callable[..., None] | None = None
) -> CompareResult:
    """Judge all methods on the same objects, and write table, figure, record and predictions into the cache's folder.

    Raises:
        InputError: labels, splits or methods that cannot be used.
    """
    splits = _splits(cache.recipe.split, options.folds)
    plan = cache.plan(splits[0])
    usual = usual_methods(plan.task)
    chosen = [*(usual if options.methods is None else options.methods), *cache.bundles]
    cache.check(chosen, plan.task)
    cache.refuse_seen(plan)
    made: Predictions = {method: [] for method in chosen}
    for number, (fold, method) in enumerate((fold, method) for fold in range(len(splits)) for method in chosen):
        name = f"fold_{fold}" if options.folds else "test"
        made[method].append(cache.get(method, splits[fold], name))
        if progress is not None:
            progress("compared", number + 1, len(splits) * len(chosen), f"{method}, fold {fold}")
    _refuse_other_columns(made)
    pooled, left_out = _pooled(made)
    known = {name: sum(part.about.get("trained_on", 0) for part in parts) for name, parts in made.items()}
    known = {name: count for name, count in known.items() if count}
    lines = {method: plan.task.comparison(one.columns, one.truth, options.repeats) for method, one in pooled.items()}
    first = next(iter(pooled.values()))
    main = plan.task.scores(plan.table(plan.rows["train"]))[0]
    table = _table(made, lines, main)
    shape = next(iter(lines.values()))
    text = markdown(table, shape.shown, shape.form)
    record = {
        "task": cache.recipe.task,
        "settings": cache.recipe.settings,
        "split": split_record(cache.recipe.split),
        "folds": options.folds,
        "data": {"digest": cache.data.digest, "ids": [source.id for source in cache.data.sources]},
        "judged": {"digest": cache.judged.digest, "ids": [source.id for source in cache.judged.sources]},
        **_classes(plan.task, first),
        "objects": len(first.rows),
        "left_out": left_out,
        "trained_on": known,
        "table": table,
    }
    networks = [line["method"] for line in table if line["method"] not in methods_of(plan.task)]
    storage.write_table(storage.join(cache.out, "predictions.parquet"), _predictions(cache, made, plan.task))
    storage.write_atomic(storage.join(cache.out, "table.md"), text.encode())
    write_figure(storage.join(cache.out, "compare.png"), figure(table, shape.drawn, networks))
    storage.write_json(storage.join(cache.out, "compare.json"), finite(record))
    told = "; ".join(f"left out {count} objects that {name} was trained on" for name, count in known.items())
    return CompareResult(cache.out, len(first.rows), options.folds, table, text, told)


def usual_methods(task: Task) -> tuple[str, ...]:
    """The network, and all classical methods for classes (those of lens searches only where there are two), or those on
    features for numbers."""
    known = methods_of(task)
    if not task.classes:
        return NETWORK, *(name for name in regressors.usual() if name in known)
    rare = ("simple_forest", "gabor_svm", "edges_logistic")
    return NETWORK, *(name for name in known if len(task.classes) == 2 or name not in rare)


def _splits(split: SplitSettings, folds: int) -> list[SplitSettings]:
    if folds == 0:
        return [split]
    if folds < 2:
        raise InputError(f"folds ({folds}) must be 2 or more, or 0 for the recipe's own split")
    return [replace(split, folds=folds, fold=fold) for fold in range(folds)]


def _refuse_other_columns(made: Predictions) -> None:
    """The folds of a task that learns its columns from the data may differ in them."""
    if len({tuple(one.columns) for parts in made.values() for one in parts}) != 1:
        raise InputError("the folds have different classes: name them all in `classes` in [settings] of the recipe")


def _pooled(made: Predictions) -> tuple[dict[str, MethodPrediction], dict[str, int]]:
    """Per method the objects that all methods measured, over the folds, in row order; how many each could not."""
    whole = []
    for parts in made.values():
        rows = np.concatenate([part.rows for part in parts])
        truth, columns = (
            {name: np.concatenate([getattr(part, kind)[name] for part in parts]) for name in getattr(parts[0], kind)}
            for kind in ("truth", "columns")
        )
        whole.append(MethodPrediction(rows, truth, columns, {}).take(np.argsort(rows)))
    asked = sum(part.about["objects"] + part.about.get("trained_on", 0) for part in next(iter(made.values())))
    left_out = {method: asked - len(one.rows) for method, one in zip(made, whole)}
    return dict(zip(made, on_common_rows(whole))), left_out


def _table(made: Predictions, lines: dict[str, Comparison], main: Score) -> list[dict[str, Any]]:
    """The records of all methods, best main score first."""
    table = [_record(method, made[method], line) for method, line in lines.items()]
    return sorted(table, key=lambda record: float(main.error(record[main.name]["value"])))


def _record(method: str, parts: Sequence[MethodPrediction], line: Comparison) -> dict[str, Any]:
    spent = [part.about["train_seconds"] for part in parts if "train_seconds" in part.about]
    seconds = sum(part.about["seconds"] for part in parts)
    return {
        "method": method,
        **line.figures,
        "trained": round(float(np.mean([part.about["trained"] for part in parts]))),
        "train_seconds": float(np.mean(spent)) if spent else None,
        "objects_per_second": sum(part.about["objects"] for part in parts) / max(seconds, 1e-9),
    }


def _classes(task: Task, judged: MethodPrediction) -> dict[str, Any]:
    """Objects of each class, where there are classes."""
    if not task.classes:
        return {}
    true = next(iter(judged.truth.values()))
    return {"classes": {name: int((true == name).sum()) for name in task.classes}}


def _predictions(cache: PredictionCache, made: Predictions, task: Task) -> pa.Table:
    """Every prediction: method, fold, row, object_id, truth (of several columns truth_<name>), columns of the task."""
    ids = cache.judged.labels["object_id"]
    tables = []
    for method, parts in made.items():
        for fold, part in enumerate(parts):
            truth = {"truth" if len(part.truth) == 1 else f"truth_{name}": v for name, v in part.truth.items()}
            columns: dict[str, Any] = {
                "method": pa.array([method] * len(part.rows)),
                "fold": np.full(len(part.rows), fold, np.int32),
                "row": part.rows,
                "object_id": ids.take(pa.array(part.rows)),
                **truth,
                **{name: part.columns[name] for name in number_columns(task)},
            }
            tables.append(pa.table(columns))
    return pa.concat_tables(tables)
