"""Predictions of classical methods: classifiers where a task has classes, regressors where it measures numbers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Columns
from astroml_plugin.evaluation.baselines import classical, regressors
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.feature_tables import FeatureTables, methods_of
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.method_prediction import MethodPrediction, finite, number_columns
from astroml_plugin.training.plan import Plan


class ClassicalMethods:
    """Classical methods on the same labelled stamps, whose inputs are made once.

    Args:
        data: what is learned from.
        judged: what is predicted; it may be `data`.
        memory: bytes that one kind of input may take.
    """

    def __init__(self, data: LabelledStamps, judged: LabelledStamps, memory: float) -> None:
        self._data, self._judged, self._memory = data, judged, memory
        self._tables: dict[bool, FeatureTables] = {}

    def predict(self, method: str, plan: Plan, rows: I64, seed: int) -> MethodPrediction:
        """Prediction of some of the judged objects, by their rows (n,), of a method that learned the training side."""
        kinds = methods_of(plan.task)[method].inputs
        learned, judged = (self._features(data, plan.task) for data in (self._data, self._judged))
        each = learned.seconds(kinds)
        started = time.perf_counter()
        parts = [learned.rows(kinds, plan.rows[split]) for split in ("train", "validation")]
        make = _classifier if plan.task.classes else self._regressor
        fitted = make(method, plan, parts, seed)
        count = len(plan.rows["train"]) + len(plan.rows["validation"])
        trained = time.perf_counter() - started + each * count
        inputs = judged.rows(kinds, rows)
        started = time.perf_counter()
        columns = fitted(inputs)
        seconds = time.perf_counter() - started + judged.seconds(kinds) * len(rows)
        about = {"trained": fitted.trained, "train_seconds": trained, "seconds": seconds, "objects": len(rows)}
        truth = plan.task.truth(self._judged.labels.take(pa.array(rows)))
        return finite(MethodPrediction(rows, truth, columns, about))

    def _regressor(self, method: str, plan: Plan, parts: list[dict[str, F64]], seed: int) -> _Numbers:
        train, validation = (plan.task.truth(plan.table(plan.rows[split])) for split in ("train", "validation"))
        return _Numbers(method, plan.task, (parts[0], train), (parts[1], validation), seed)

    def _features(self, data: LabelledStamps, task: Task) -> FeatureTables:
        key = data is self._data
        if key not in self._tables:
            self._tables[key] = FeatureTables(data, task, self._memory)
        return self._tables[key]


class _Classes:
    """A fitted classifier and its columns."""

    def __init__(self, fitted: classical.Classifier, names: list[str]) -> None:
        self._fitted, self._names, self.trained = fitted, names, fitted.trained

    def __call__(self, inputs: dict[str, F64]) -> Columns:
        return dict(zip(self._names, self._fitted.probabilities(inputs).T))


def _classifier(method: str, plan: Plan, parts: list[dict[str, F64]], seed: int) -> _Classes:
    numbers = [class_numbers(plan.targets[split]) for split in ("train", "validation")]
    fitted = classical.Classifier(
        method,
        parts[0],
        numbers[0],
        parts[1],
        numbers[1],
        classes=len(plan.task.classes),
        weights=plan.task.settings.weights,
        seed=seed,
    )
    return _Classes(fitted, number_columns(plan.task))


class _Numbers:
    """A fitted regressor and its columns; columns that it does not measure are NaN."""

    def __init__(
        self, method: str, task: Task, train: tuple[dict[str, F64], Columns], held: tuple[Any, Columns], seed: int
    ) -> None:
        self._names, self._logarithmic = list(train[1]), set(task.logarithmic_columns)
        self._all = number_columns(task)
        (seen, targets), (held_seen, held_targets) = (self._known(*part) for part in (train, held))
        self._fitted = regressors.Regressor(method, seen, targets, held_seen, held_targets, seed=seed)
        self.trained = self._fitted.trained

    def _known(self, inputs: dict[str, F64], truth: Columns) -> tuple[dict[str, F64], F64]:
        """Objects whose true values are numbers: inputs, and values as they are learned (n, k)."""
        with np.errstate(all="ignore"):
            values = [
                np.log(np.asarray(column, np.float64)) if name in self._logarithmic else np.asarray(column, np.float64)
                for name, column in truth.items()
            ]
        targets = np.stack(values, axis=1)
        good = np.isfinite(targets).all(1)
        if not good.any():
            raise InputError(f"no object has finite values of {', '.join(truth)}: check the label columns")
        return {kind: table[good] for kind, table in inputs.items()}, targets[good]

    def __call__(self, inputs: dict[str, F64]) -> Columns:
        found = self._fitted.values(inputs)
        values = {
            name: np.exp(column) if name in self._logarithmic else column for name, column in zip(self._names, found.T)
        }
        return {name: values.get(name, np.full(len(found), np.nan)) for name in dict.fromkeys([*self._all, *values])}


def class_numbers(targets: torch.Tensor) -> I64:
    """(n,) classes; where the labels are votes, the one with most."""
    return np.asarray(targets.argmax(1) if targets.ndim == 2 else targets, np.int64)
