"""Prediction of one method for the objects of one split, and the Parquet file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import formats, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64, Array, Columns
from astroml_plugin.tasks.base import Task

_TRUTH = "truth:"
"""Prefix of the true values' columns in a file."""


@dataclass(frozen=True)
class MethodPrediction:
    """One method on the test side of one split."""

    rows: I64
    """(n,) numbers of the objects that were measured."""
    truth: Columns
    """Catalog column -> (n,) true values."""
    columns: Columns
    """Catalog column -> (n,) what the method gives."""
    about: dict[str, Any]
    """identity, trained (objects), train_seconds, seconds (of the test side), objects (asked for)."""

    def take(self, places: Array) -> MethodPrediction:
        """Some of the objects, by their places or a mask (n,)."""
        truth, columns = (
            {name: array[places] for name, array in arrays.items()} for arrays in (self.truth, self.columns)
        )
        return MethodPrediction(self.rows[places], truth, columns, self.about)


def on_common_rows(predictions: Sequence[MethodPrediction]) -> list[MethodPrediction]:
    """The objects that all predictions have, in row order."""
    common = predictions[0].rows
    for other in predictions[1:]:
        common = np.intersect1d(common, other.rows)
    return [made.take(np.isin(made.rows, common)) for made in predictions]


def number_columns(task: Task) -> list[str]:
    """Names of the catalog's columns of a task that hold one floating-point number."""
    return [column.name for column in task.columns() if column.type in ("float32", "float64")]


def finite(made: MethodPrediction) -> MethodPrediction:
    """The objects whose columns that are judged are numbers."""
    judged = [made.columns[name] for name in made.truth if name in made.columns] or list(made.columns.values())
    return made.take(np.isfinite(np.stack(judged)).all(0))


def write(url: str, made: MethodPrediction) -> None:
    """Write a prediction, whole or not at all."""
    columns = {"row": made.rows, **{f"{_TRUTH}{name}": values for name, values in made.truth.items()}, **made.columns}
    table = pa.table(columns)
    storage.write_table(url, table.replace_schema_metadata({formats.PREDICTIONS: json.dumps(made.about).encode()}))


def read(url: str, identity: str) -> MethodPrediction:
    """Read a prediction.

    Raises:
        InputError: it is not that of this identity.
    """
    table = storage.read_table(url)
    about = storage.parse_json((table.schema.metadata or {}).get(formats.PREDICTIONS.encode(), b"{}"), url)
    if about.get("identity") != identity:
        raise InputError(
            f"{storage.redact(url)} was made with another recipe, seed, split or data: "
            f"choose another output or remove it"
        )
    values = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    rows = values.pop("row")
    truth = {name.removeprefix(_TRUTH): values.pop(name) for name in list(values) if name.startswith(_TRUTH)}
    return MethodPrediction(rows, truth, values, about)
