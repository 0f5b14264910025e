"""Features of all usable stamps of some sources, kept in memory while classical methods are compared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation.baselines import classical, features, regressors
from astroml_plugin.evaluation.baselines.fitting import Method
from astroml_plugin.pixels import band_index
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.input_unit import ANY, in_unit, trained_unit
from astroml_plugin.training.labelled import LabelledStamps


def methods_of(task: Task) -> Mapping[str, Method]:
    """Classical methods that can learn what a task does: classes, numbers, or neither."""
    if task.classes:
        return classical.METHODS
    return {} if task.layers or not task.learns_labels else regressors.METHODS


@dataclass(frozen=True)
class _Table:
    """One kind of input."""

    rows: I64
    """(n,) sorted numbers of the objects."""
    values: F64
    """(n, columns)"""
    seconds: float
    """Time that one object took."""


class FeatureTables:
    """Inputs of classical methods, each kind made once.

    Args:
        data: labelled stamps.
        task: says which are usable, at which size and in which bands.
        memory: bytes that one kind of input may take.
    """

    def __init__(self, data: LabelledStamps, task: Task, memory: float) -> None:
        self._data, self._task, self._memory = data, task, memory
        self._bands = task.choose_bands(data.first.bands)
        self._tables: dict[str, _Table] = {}

    def rows(self, kinds: Sequence[str], rows: I64) -> dict[str, F64]:
        """Kind of `features.INPUTS` -> (n, columns) of some objects, by their row numbers (n,)."""
        tables = {kind: self._table(kind) for kind in kinds}
        return {kind: table.values[np.searchsorted(table.rows, rows)] for kind, table in tables.items()}

    def seconds(self, kinds: Sequence[str]) -> float:
        """Time that these inputs of one object took."""
        return sum(self._table(kind).seconds for kind in kinds)

    def _table(self, kind: str) -> _Table:
        if kind not in self._tables:
            usable = np.flatnonzero(self._task.usable(self._data.labels))
            parts, spent = [], 0.0
            unit = self._unit()
            for block in self._data.blocks:
                rows = usable[(usable >= block.start) & (usable < block.stop)]
                if len(rows) == 0:
                    continue
                cutouts = in_unit(self._task.fitted_stamps(self._data.read(block, rows, self._bands)), unit)
                started = time.perf_counter()
                parts.append(features.INPUTS[kind](cutouts).values)
                spent += time.perf_counter() - started
                self._refuse_large(kind, len(usable), parts[0].shape[1])
            self._tables[kind] = _Table(usable, np.concatenate(parts), spent / len(usable))
        return self._tables[kind]

    def _unit(self) -> str:
        """Unit of the features: that of the task's input, or one for all sources where the task needs none.

        Raises:
            InputError: some sources have a zero point and some have none.
        """
        sources = self._data.sources
        if self._task.input_unit != ANY or len(self._bands) > len(self._task.bands):
            return self._task.input_unit
        units = [[one.zero_points[place] for place in band_index(one.bands, self._bands)] for one in sources]
        return trained_unit(False, self._task.settings.dtype, units)

    def _refuse_large(self, kind: str, count: int, columns: int) -> None:
        size = 4.0 * count * columns
        if size > self._memory:
            without = ", ".join(name for name, one in methods_of(self._task).items() if kind not in one.inputs)
            raise InputError(
                f"the {kind} of {count} objects take {size / 1e9:.1f} GB and memory in [training] of the recipe is "
                f"{self._memory / 1e9:.1f} GB: raise it, or compare only methods without them, {without}"
            )
